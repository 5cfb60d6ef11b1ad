"""What the page of a run shows, as plain values: ``templates/report.html`` lays them out and escapes them.

Three values are not escaped, as they are made here: charts, the JSON of 3D figures, and plotly.js.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from metrics.metric import BETTER, shown, shown_interval
from metrics.metric_handler import find_metric, metrics_of, split_class, title_of
from reports.finished_run import FinishedRun
from reports.run import Run
from reports.svg_chart import line_chart


@dataclass(frozen=True)
class Table:
    """Cells of text; the first of each row is its heading."""

    header: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Chart:
    """A line chart: its title, the names of its lines, and an ``<svg>`` element."""

    title: str
    lines: list[str]
    svg: str


@dataclass(frozen=True)
class MetricRow:
    """A metric over all test cases, as text; ``worst_anchor`` is the id of the worst case in the page."""

    title: str
    mean: str
    interval: str
    median: str
    worst_value: str
    worst_case: str
    worst_anchor: str
    unit: str
    direction: str
    explanation: str


@dataclass(frozen=True)
class CaseView:
    """A test case.

    Attributes:
        case_id: of the case.
        anchor: its id in the page.
        numbers: title of a metric -> value.
        classes: metrics of single classes; no rows where there are none.
        figure_id: id of the 3D figure's data in the page; "" where the case has none.
        files: title -> path, relative to the page.
        picture: data URL; "" where the picture is not in the page.
    """

    case_id: str
    anchor: str
    numbers: dict[str, str]
    classes: Table
    figure_id: str
    files: dict[str, str]
    picture: str = ""


@dataclass(frozen=True)
class Page:
    """The whole page; of a run that was not tested yet, all from the metrics on is left out.

    Attributes:
        title: name of the run.
        kind: what was trained.
        verdict: the main metric, in one line.
        facts: further metrics, and for how long the network was trained.
        settings: title -> name of a setting -> value.
        charts: losses and score over epochs.
        metrics: a row for each metric.
        class_means: means of single classes; no rows where there are none.
        surfaces_shown: which cases have 3D surfaces; "" where the task has none.
        cases: worst first.
        figures: id -> JSON of a 3D figure.
        plotly_js: the library that draws them; "" where there are none.
    """

    title: str
    kind: str
    verdict: str
    facts: list[str]
    settings: dict[str, dict[str, str]]
    charts: list[Chart]
    metrics: list[MetricRow] = field(default_factory=list)
    class_means: Table = field(default_factory=lambda: Table([], []))
    surfaces_shown: str = ""
    cases: list[CaseView] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)
    plotly_js: str = ""


def kind(run: Run) -> str:
    """What was trained."""
    return f"{run.task.network_name.capitalize()}, {run.config['settings'].get('model', '')}"


def verdict(run: Run) -> str:
    """The main metric, in one line."""
    if not isinstance(run, FinishedRun):
        return "Not tested yet"
    metric = run.main_metric
    summary = run.summary[metric]
    interval = run.interval(metric)
    within = f" (95 % interval {shown_interval(interval, summary['unit'])})" if interval else ""
    mean = shown(summary["mean"], summary["unit"])
    return f"{title_of(metric)} {mean}{within} on {_count(len(run.cases), 'test case')}"


def facts(run: Run) -> list[str]:
    """Means of the other main metrics, and for how long the network was trained."""
    found = []
    if isinstance(run, FinishedRun):
        main = metrics_of(run.task.name, run.summary).main
        others = [metric for metric in main if metric in run.summary and metric != run.main_metric]
        found += [f"{title_of(m)} {shown(run.summary[m]['mean'], run.summary[m]['unit'])}" for m in others]
    found.append(_epochs(run))
    if run.left_out:
        cases = ", ".join(run.left_out)
        found.append(f"patches without a finite loss were left out (in one epoch, of the case): {cases}")
    return found


def _epochs(run: Run) -> str:
    """How many epochs were trained, and which is the best."""
    done = _count(len(run.history), "epoch")
    if not isinstance(run, FinishedRun):
        done += f" of at most {run.config['settings'].get('epochs', '?')}"
    if run.best_epoch is None:
        return done
    epoch, score = run.best_epoch
    best = "best after epoch" if isinstance(run, FinishedRun) else "best so far after epoch"
    value = next(row.get(score) for row in run.history if row["epoch"] == epoch)
    told = f"{done}, {best} {epoch}"
    return f"{told}, by {score.replace('_', ' ')} {value:.4g}" if value is not None else told


def settings(run: Run) -> dict[str, dict[str, str]]:
    """Settings, hardware and versions: title -> name -> value."""
    config = dict(run.config)
    chosen, versions = config.pop("settings"), config.pop("versions", {})
    tables = {"Settings": chosen, "Computed with": {**config.pop("hardware", {}), **config}, "Versions": versions}
    return {
        title: {str(name).replace("_", " "): _setting(value) for name, value in values.items()}
        for title, values in tables.items()
    }


def charts(run: Run) -> list[Chart]:
    """Losses, and the validation score where there is one, over epochs; none without a history."""
    if not run.history:
        return []
    columns = {"Loss": {"training": "train_loss", "validation": "validation_loss"}}
    if run.score_name:
        whole = f"full_{run.score_name}"
        of_whole_scans = {"whole scans": whole} if any(whole in row for row in run.history) else {}
        columns[f"Score: {run.score_name.replace('_', ' ')}"] = {"score": run.score_name, **of_whole_scans}
    return [_chart(run, title, lines) for title, lines in columns.items()]


def _chart(run: Run, title: str, columns: Mapping[str, str]) -> Chart:
    lines = {name: [row.get(column, float("nan")) for row in run.history] for name, column in columns.items()}
    return Chart(title, list(lines), line_chart([row["epoch"] for row in run.history], lines))


def metric_rows(run: FinishedRun) -> list[MetricRow]:
    """A row for each metric that is not of a single class."""
    return [_metric_row(run, metric) for metric in run.summary if split_class(metric)[1] is None]


def _metric_row(run: FinishedRun, metric: str) -> MetricRow:
    summary = run.summary[metric]
    unit, worst = summary["unit"], run.worst_case(metric)
    known = find_metric(metric)
    return MetricRow(
        title=title_of(metric),
        mean=shown(summary["mean"], unit),
        interval=shown_interval(run.interval(metric), unit),
        median=shown(summary["median"], unit),
        worst_value=shown(run.cases[worst][metric], unit),
        worst_case=worst,
        worst_anchor=_anchor(run, worst),
        unit=known.scale_and_best if known else unit,
        direction=BETTER[summary["higher_is_better"]],
        explanation=known.explanation if known else "",
    )


def class_means(run: FinishedRun) -> Table:
    """Means of metrics of single classes."""
    return _class_table(run, {metric: summary["mean"] for metric, summary in run.summary.items()})


def case_view(run: FinishedRun, case: str, figure_id: str, files: dict[str, str]) -> CaseView:
    """A case's numbers, the id of its 3D figure, and its files; without its picture."""
    values = run.cases[case]
    numbers = {
        title_of(metric): shown(value, _unit(run, metric))
        for metric, value in values.items()
        if split_class(metric)[1] is None
    }
    return CaseView(case, _anchor(run, case), numbers, _class_table(run, values), figure_id, files)


def _class_table(run: FinishedRun, values: Mapping[str, float]) -> Table:
    """Classes down, metrics across."""
    of_class = [split_class(metric) for metric in values]
    classes = dict.fromkeys(name for _, name in of_class if name)
    plain = dict.fromkeys(metric for metric, name in of_class if name)
    rows = [
        [name, *(shown(values.get(f"{metric}_{name}"), _unit(run, f"{metric}_{name}")) for metric in plain)]
        for name in classes
    ]
    return Table(["Class", *map(title_of, plain)], rows)


def _anchor(run: FinishedRun, case: str) -> str:
    """Id of a case in the page."""
    return f"case-{run.worst_first.index(case) + 1}"


def _unit(run: FinishedRun, metric: str) -> str:
    return run.summary[metric]["unit"] if metric in run.summary else "1"


def _setting(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={_setting(one)}" for key, one in value.items()) or "–"
    if isinstance(value, list):
        return " ".join(map(_setting, value))
    if isinstance(value, bool) or value is None:
        return {None: "–", True: "yes", False: "no"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
