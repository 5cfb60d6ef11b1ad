"""A run's report, one page that opens anywhere without a network: python -m reports.report RUN."""

from __future__ import annotations

import base64
import dataclasses
import warnings
from functools import cache
from io import BytesIO
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from jinja2.utils import htmlsafe_json_dumps

from reports import page
from reports.finished_run import FinishedRun, read_finished_run
from reports.run import Run, read_run
from reports.surface_figure import error_figure
from utils.misc import OneLineParser, command
from utils.tasks import SEGMENTATION
from verse_utils.files.writing import written_aside

# The page stays below MOST_BYTES: surfaces for the worst cases first, then pictures as clear as the rest allows.
MOST_BYTES = 15_000_000
MOST_SURFACES = 5
SURFACES_BYTES = 6_000_000
# A picture in fewer bytes shows nothing.
LEAST_PICTURE_BYTES = 12_000
# HTML around a picture.
_BYTES_AROUND_PICTURE = 400
# A picture's greatest width in pixels, and its quality as JPEG: from the best to the least that still shows an outline.
_JPEG_STEPS = ((1080, 88), (1080, 75), (900, 70), (720, 65), (600, 55), (480, 45), (400, 35))
_JPEG_PREFIX = "data:image/jpeg;base64,"


def write_report(folder: Path) -> Path:
    """Write the report into the folder of a run, whole or not at all. A run that goes on has its curves, but no test.

    Args:
        folder: of the run, or its name in ``trained_models``.

    Returns:
        The page's path.

    Raises:
        UserError: there is no such run, or its files were not written by training.
    """
    run = read_run(folder)
    html = build_page(read_finished_run(folder)) if run.folder.test_metrics.is_file() else _render(_untested(run))
    with written_aside(run.folder.report) as aside:
        aside.write_text(html, encoding="utf-8")
    return run.folder.report


def build_page(run: FinishedRun) -> str:
    """The report of a finished run as HTML, below ``MOST_BYTES`` in UTF-8."""
    figures = _figures(run)
    content = _content(run, figures)
    room = MOST_BYTES - len(_render(content).encode()) - _BYTES_AROUND_PICTURE * len(run.cases)
    pictures = _pictures(run, room)
    cases = [dataclasses.replace(case, picture=pictures.get(case.case_id, "")) for case in content.cases]
    return _render(dataclasses.replace(content, cases=cases))


def _untested(run: Run) -> page.Page:
    return page.Page(run.name, page.kind(run), page.verdict(run), page.facts(run), page.settings(run), page.charts(run))


def _content(run: FinishedRun, figures: dict[str, str]) -> page.Page:
    """All but the pictures, which get the room that the rest leaves."""
    ids = {case: f"figure-{number}" for number, case in enumerate(figures, start=1)}
    return page.Page(
        title=run.name,
        kind=page.kind(run),
        verdict=page.verdict(run),
        facts=page.facts(run),
        settings=page.settings(run),
        charts=page.charts(run),
        metrics=page.metric_rows(run),
        class_means=page.class_means(run),
        surfaces_shown=_surfaces_shown(run, figures),
        cases=[page.case_view(run, case, ids.get(case, ""), _files(run, case)) for case in run.worst_first],
        figures={ids[case]: figure for case, figure in figures.items()},
        plotly_js=_plotly_js() if figures else "",
    )


def _render(content: page.Page) -> str:
    return _template().render(page=content)


@cache
def _template() -> Template:
    loader = FileSystemLoader(Path(__file__).with_name("templates"))
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html")


def _masks(run: FinishedRun, case: str) -> dict[str, Path]:
    return {name: run.folder.test_mask(case, name) for name in ("prediction", "target")}


def _files(run: FinishedRun, case: str) -> dict[str, str]:
    """Title -> path below the run's folder, of the files that are there."""
    masks = _masks(run, case)
    paths = {
        "picture": run.folder.test_picture(case),
        "prediction": masks["prediction"],
        "reference mask": masks["target"],
    }
    return {title: path.relative_to(run.folder.path).as_posix() for title, path in paths.items() if path.is_file()}


def _figures(run: FinishedRun) -> dict[str, str]:
    """Case -> its 3D figure as JSON, of the worst cases that have masks."""
    figures: dict[str, str] = {}
    left = SURFACES_BYTES
    for case in run.worst_first:
        masks = _masks(run, case)
        if len(figures) == MOST_SURFACES or not all(path.is_file() for path in masks.values()):
            continue
        figure = _figure(masks["prediction"], masks["target"])
        left -= len(figure)
        if left < 0:
            break
        figures[case] = figure
    return figures


def _figure(prediction: Path, reference: Path) -> str:
    from verse_utils.images import check_same_grid, open_image, read_mask

    check_same_grid(open_image(prediction), open_image(reference), prediction, reference)
    figure = error_figure(read_mask(prediction), read_mask(reference), open_image(prediction).affine, "")
    return htmlsafe_json_dumps(figure.update_layout(margin_t=0), dumps=lambda one: one.to_json())


def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs

    source: str = get_plotlyjs()
    return source


def _pictures(run: FinishedRun, room: int) -> dict[str, str]:
    """Case -> data URL, of the worst cases whose pictures are legible within the room (bytes)."""
    paths = {case: path for case in run.worst_first if (path := run.folder.test_picture(case)).is_file()}
    cases = list(paths)[: max(0, room // data_url_bytes(LEAST_PICTURE_BYTES))]
    urls = {}
    for number, case in enumerate(cases):
        url = jpeg_data_url(paths[case], room // (len(cases) - number))
        if url is not None:
            urls[case] = url
            room -= len(url)
    return urls


def jpeg_data_url(path: Path, most_bytes: int) -> str | None:
    """A picture as a JPEG's data URL of at most so many characters; None where it is damaged or would be illegible."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            rgba = opened.convert("RGBA")
    except OSError:  # whatever is wrong with it
        warnings.warn(f"{path}: damaged, or no picture; the report is without it", stacklevel=2)
        return None
    picture = Image.new("RGB", rgba.size, "white")  # figures are transparent where their paper is
    picture.paste(rgba, mask=rgba.getchannel("A"))
    for width, quality in _JPEG_STEPS:
        smaller = picture.copy()
        smaller.thumbnail((width, width * 4), Image.Resampling.LANCZOS)
        buffer = BytesIO()
        # No chroma subsampling: it blurs coloured outlines.
        smaller.save(buffer, "JPEG", quality=quality, subsampling=0)
        if data_url_bytes(buffer.tell()) <= most_bytes:
            return _JPEG_PREFIX + base64.b64encode(buffer.getvalue()).decode()
    return None


def data_url_bytes(jpeg_bytes: int) -> int:
    """Length of a data URL that holds so many bytes: base64 makes 4 characters of 3 bytes."""
    return len(_JPEG_PREFIX) + 4 * -(-jpeg_bytes // 3)


def _surfaces_shown(run: FinishedRun, figures: dict[str, str]) -> str:
    if run.task != SEGMENTATION:
        return ""
    if not figures:
        return "No 3D surfaces: the run's folder holds no masks of its test cases."
    these = "each case" if len(figures) == len(run.cases) else f"the worst {len(figures)} of {len(run.cases)} cases"
    return (
        f"3D surfaces are shown for {these}: the prediction, coloured by its distance to the reference mask, and the "
        "reference mask in transparent grey. Drag to turn; a click in the legend hides a surface."
    )


@command
def main() -> None:
    """Read the arguments and write the report."""
    parser = OneLineParser(description="Write a run's report.html into its folder.")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, or its name")
    print(write_report(parser.parse_args().run))


if __name__ == "__main__":
    main()
