"""A run's report, one page that opens anywhere without a network: python -m utils.report RUN."""

from __future__ import annotations

import base64
from pathlib import Path
from string import Template

from utils import report_parts as parts
from utils.misc import OneLineParser, run_command, written_aside
from utils.runs import Run, read_run

# The page stays below MOST_BYTES: surfaces for the worst cases first, then pictures as clear as the rest allows.
MOST_BYTES = 15_000_000
MOST_SURFACES = 5
SURFACES_BYTES = 6_000_000
# A picture that gets less shows nothing.
LEAST_PICTURE_BYTES = 12_000


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into the folder of a run, whole or not at all.

    Args:
        folder: of the run, or its name in ``trained_models``.

    Returns:
        The page's path.

    Raises:
        UserError: no run, or an unfinished one.
    """
    run = read_run(folder)
    path = run.folder / "report.html"
    page = build_page(run)
    with written_aside(path) as aside:
        aside.write_text(page, encoding="utf-8")
    return path


def build_page(run: Run) -> str:
    """The report as HTML, below ``MOST_BYTES`` in UTF-8."""
    surfaces = _surfaces(run)
    without_pictures = _page(run, surfaces, {})
    room = MOST_BYTES - len(without_pictures.encode()) - 400 * len(run.cases)
    return _page(run, surfaces, _pictures(run, room))


def _page(run: Run, surfaces: dict[str, str], pictures: dict[str, str]) -> str:
    template = Template(_packaged("report.html"))
    ids = {case: f"figure-{number}" for number, case in enumerate(surfaces, start=1)}
    cases = [
        parts.case(run, position, pictures.get(case, ""), ids.get(case), _files(run, case))
        for position, case in enumerate(run.worst_first)
    ]
    return template.substitute(
        title=parts.escape(run.name),
        kind=parts.kind(run),
        verdict=parts.verdict(run),
        facts=parts.facts(run),
        settings=parts.settings(run),
        curves=parts.curves(run),
        metrics=parts.metrics(run),
        cases=_what_is_shown(run, surfaces) + "\n".join(cases),
        surfaces=_scripts({ids[case]: figure for case, figure in surfaces.items()}),
    )


def _packaged(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _mask_paths(run: Run, case: str) -> dict[str, Path]:
    return {name: run.folder / "test" / f"{case}_{name}.nii.gz" for name in ("prediction", "target")}


def _picture_path(run: Run, case: str) -> Path:
    return run.folder / "images" / f"test_{case}.png"


def _files(run: Run, case: str) -> dict[str, str]:
    """Title -> path below the run's folder, of the files that are there."""
    paths = {"picture": _picture_path(run, case), **_mask_paths(run, case)}
    return {name: path.relative_to(run.folder).as_posix() for name, path in paths.items() if path.is_file()}


def _surfaces(run: Run) -> dict[str, str]:
    """Case -> its 3D figure as JSON, of the worst cases that have masks."""
    figures: dict[str, str] = {}
    left = SURFACES_BYTES
    for case in run.worst_first:
        paths = _mask_paths(run, case)
        if len(figures) == MOST_SURFACES or not all(path.is_file() for path in paths.values()):
            continue
        figure = _surface(**paths)
        left -= len(figure)
        if left < 0:
            break
        figures[case] = figure
    return figures


def _surface(prediction: Path, target: Path) -> str:
    from utils.surfaces import error_figure
    from verse_utils.images import check_same_grid, open_image, read_mask

    check_same_grid(open_image(prediction), open_image(target), prediction, target)
    figure = error_figure(read_mask(prediction), read_mask(target), open_image(prediction).affine, "")
    # As "<" could end the script that holds it.
    return figure.update_layout(margin_t=0).to_json().replace("<", "\\u003c")


def _pictures(run: Run, room: int) -> dict[str, str]:
    """Case -> data URL, of the worst cases whose pictures fit the room (bytes) while they show something."""
    from utils.visualize import jpeg_within

    cases = [case for case in run.worst_first if _picture_path(run, case).is_file()]
    cases = cases[: max(0, room * 3 // 4 // LEAST_PICTURE_BYTES)]
    urls = {}
    for number, case in enumerate(cases):
        share = room // (len(cases) - number)
        if (jpeg := jpeg_within(_picture_path(run, case), share * 3 // 4)) is not None:
            urls[case] = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
            room -= len(urls[case])
    return urls


def _what_is_shown(run: Run, surfaces: dict[str, str]) -> str:
    if run.task != "segmentation":
        return ""
    if not surfaces:
        return '<p class="soft">No 3D surfaces: the run\'s folder holds no masks of its test cases (test/).</p>'
    these = "each case" if len(surfaces) == len(run.cases) else f"the worst {len(surfaces)} of {len(run.cases)} cases"
    return (
        f'<p class="soft">3D surfaces are shown for {these}: the prediction, coloured by its distance to the truth, '
        "and the truth as a grey veil. Drag to turn; a click in the legend hides a surface.</p>"
    )


def _scripts(figures: dict[str, str]) -> str:
    """The figures' data and what draws them; nothing where there are none."""
    if not figures:
        return ""
    from plotly.offline import get_plotlyjs

    data = [f'<script type="application/json" id="{name}">{figure}</script>' for name, figure in figures.items()]
    return "\n".join([*data, f"<script>{get_plotlyjs()}</script>", f"<script>{_packaged('report.js')}</script>"])


def main() -> None:
    """Read the arguments and write the report."""
    parser = OneLineParser(description="Write a finished run's report.html into its folder.")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, or its name")
    print(write_report(parser.parse_args().run))


if __name__ == "__main__":
    run_command(main)
