"""The parts of a run's report, as HTML. Every name and value from outside is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from utils.glossary import BETTER, GLOSSARY, MAIN_METRICS, RANKED_BY, shown, shown_interval, split_class, title_of
from utils.runs import Run
from utils.svg_chart import line_chart

_KINDS = {"segmentation": "Segmenter", "heatmap": "Localiser"}


def kind(run: Run) -> str:
    """What was trained."""
    return f"{_KINDS[run.task]}, {escape(str(run.config['settings'].get('model', '')))}"


def verdict(run: Run) -> str:
    """The metric that tells most, in one line."""
    metric = RANKED_BY[run.task]
    facts = run.summary[metric]
    interval = run.interval(metric)
    within = f" (95 % interval {shown_interval(interval, facts['unit'])})" if interval else ""
    return f"{title_of(metric)} {shown(facts['mean'], facts['unit'])}{within} on {_count(len(run.cases), 'test case')}"


def facts(run: Run) -> str:
    """The other main metrics' means, and how long was trained."""
    others = [m for m in MAIN_METRICS[run.task] if m in run.summary and m != RANKED_BY[run.task]]
    told = [f"{title_of(m)} {shown(run.summary[m]['mean'], run.summary[m]['unit'])}" for m in others]
    if run.history:
        best = max(run.history, key=lambda row: row.get(_score_name(run), 0.0))
        told.append(f"{_count(len(run.history), 'epoch')}, best after epoch {best['epoch']:g}")
    return " · ".join(told)


def settings(run: Run) -> str:
    """Settings, what computed, and versions; folded."""
    config = dict(run.config)
    tables = {"Settings": config.pop("settings"), "Versions": config.pop("versions", {})}
    computed_with = {**config.pop("hardware", {}), **config}
    tables = {"Settings": tables["Settings"], "Computed with": computed_with, "Versions": tables["Versions"]}
    parts = []
    for title, values in tables.items():
        rows = "".join(
            f'<tr><th scope="row">{escape(str(key).replace("_", " "))}</th><td>{escape(_setting(value))}</td></tr>'
            for key, value in values.items()
        )
        parts.append(f'<div><h4>{title}</h4><table class="settings"><tbody>{rows}</tbody></table></div>')
    summary = "Settings of the run, what it was computed with, and versions"
    return f'<details><summary>{summary}</summary><div class="columns">{"".join(parts)}</div></details>'


def curves(run: Run) -> str:
    """Losses and validation score over epochs."""
    if not run.history:
        return '<p class="soft">No metrics.csv lies in the run\'s folder.</p>'
    epochs = [row["epoch"] for row in run.history]
    score = _score_name(run)
    charts = {"Loss": {"training": "train_loss", "validation": "validation_loss"}}
    if score:
        charts[f"Score: {score.replace('_', ' ')}"] = {"score": score}
    figures = []
    for title, columns in charts.items():
        lines = {name: [row.get(column, float("nan")) for row in run.history] for name, column in columns.items()}
        keys = [
            f'<span class="key-{n}">{"━" if n == 1 else "╍"} {name}</span>' for n, name in enumerate(lines, start=1)
        ]
        key = f": {' '.join(keys)}" if len(keys) > 1 else ""
        caption = f"<figcaption>{escape(title)}{key}</figcaption>"
        figures.append(f"<figure>{caption}{line_chart(title, epochs, lines)}</figure>")
    return f'<div class="columns">{"".join(figures)}</div>'


def _score_name(run: Run) -> str:
    """The column of the score that picks the best epoch."""
    names = (name for name in run.history[0] if name.startswith("validation_") and name != "validation_loss")
    return next(names, "")


def metrics(run: Run) -> str:
    """A row a metric, what the metrics are, and the means of single classes where there are classes."""
    plain = [metric for metric in run.summary if split_class(metric)[1] is None]
    anchors = {case: f"#{anchor(position)}" for position, case in enumerate(run.worst_first)}
    rows = []
    for metric in plain:
        of = run.summary[metric]
        unit = of["unit"]
        worst = run.worst_case(metric)
        value = shown(run.cases[worst][metric], unit)
        rows.append(
            [
                title_of(metric),
                shown(of["mean"], unit),
                shown_interval(run.interval(metric), unit),
                shown(of["median"], unit),
                f'{value} <a href="{anchors[worst]}">{escape(worst)}</a>',
                GLOSSARY[metric].scale if metric in GLOSSARY else escape(unit),
                BETTER[of["higher_is_better"]],
            ]
        )
    header = ["Metric", "Mean", "95 % interval of the mean", "Median", "Worst case", "Unit", "Direction"]
    terms = "".join(
        f"<dt>{GLOSSARY[metric].title}</dt><dd>{GLOSSARY[metric].explanation} ({GLOSSARY[metric].scale})</dd>"
        for metric in plain
        if metric in GLOSSARY
    )
    return f'{_table(header, rows)}{_class_means(run)}<dl class="glossary">{terms}</dl>'


def _class_means(run: Run) -> str:
    means = {metric: facts["mean"] for metric, facts in run.summary.items()}
    units = {metric: facts["unit"] for metric, facts in run.summary.items()}
    return _class_table("Means of each class", means, units)


def _class_table(summary: str, values: Mapping[str, float], units: Mapping[str, str]) -> str:
    """Classes down, metrics across; nothing where no metric is of a class."""
    of_class = {metric: split_class(metric) for metric in values}
    classes = list(dict.fromkeys(name for _, name in of_class.values() if name))
    plain = list(dict.fromkeys(metric for metric, name in of_class.values() if name))
    if not classes:
        return ""
    rows = [
        [escape(name), *(shown(values.get(f"{m}_{name}"), units.get(f"{m}_{name}", "1")) for m in plain)]
        for name in classes
    ]
    table = _table(["Class", *map(title_of, plain)], rows)
    return f"<details><summary>{summary}</summary>{table}</details>"


def anchor(position: int) -> str:
    """Id of the case at a position of the worst-first order."""
    return f"case-{position + 1}"


def case(run: Run, position: int, picture: str, figure_id: str | None, files: Mapping[str, str]) -> str:
    """A test case's numbers, picture, place for its surfaces, and files.

    Args:
        run: of the report.
        position: of the case, worst first.
        picture: data URL; "" where the picture doesn't fit.
        figure_id: id of the figure's data in the page; None where the case has none.
        files: title -> path below the run's folder.
    """
    case_id = run.worst_first[position]
    values = run.cases[case_id]
    units = {metric: facts["unit"] for metric, facts in run.summary.items()}
    numbers = "".join(
        f"<div><dt>{escape(title_of(metric))}</dt><dd>{shown(value, units.get(metric, '1'))}</dd></div>"
        for metric, value in values.items()
        if split_class(metric)[1] is None
    )
    views = []
    if picture:
        alt = f"{case_id}: prediction and target on slices"
        views.append(f'<figure><img src="{picture}" alt="{escape(alt)}" decoding="async"></figure>')
    if figure_id:
        label = f"{case_id}: surfaces of prediction and truth in 3D"
        views.append(
            f'<div class="surface"><div class="plot" data-figure="{figure_id}" role="img" aria-label="{escape(label)}">'
            '</div><button class="wake" type="button">Tap to turn it</button></div>'
        )
    links = "".join(f'<a href="{quote(path)}">{escape(title)}</a>' for title, path in files.items())
    return (
        f'<article id="{anchor(position)}"><h3>{escape(case_id)}</h3><dl class="numbers">{numbers}</dl>'
        f"{_class_table('Each class', values, units)}"
        f'<div class="views{" two" if len(views) > 1 else ""}">{"".join(views)}</div>'
        f'<p class="links">{links}</p></article>'
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that scrolls inside its container; cells are HTML."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


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
