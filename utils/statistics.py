"""Statistics of a VerSe folder or an H5: ``python -m utils.statistics --data_path ROOT|H5 --output FOLDER``.

Writes ``statistics.json`` (summary, outliers by the rules of ``utils.dataset_facts.outliers``, a row for each case,
cases that can't be read) and pictures to ``FOLDER``: ``grids.png``, ``intensities.png``, ``vertebrae.png``.
"In bone" is where the mask is a vertebra; sacrum and coccyx count as outside.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.misc import OneLineParser, command
from utils.pool import run_all
from utils.resources import usable_cores
from verse_utils.cases import Chosen
from verse_utils.catalogue import list_cases
from verse_utils.editions import Edition, add_edition_argument
from verse_utils.errors import UserError
from verse_utils.files.writing import write_json
from verse_utils.labels import ANATOMICAL_ORDER, VERTEBRA_NAMES
from verse_utils.names import SPLITS

if TYPE_CHECKING:
    from utils.dataset_facts.case_facts import CaseFacts, FailedCase

_AXES = {"X": "left-right", "Y": "back-front", "Z": "down-up"}


def gather(
    data_path: Path, edition: Edition, workers: int, exclude: Iterable[str] = ()
) -> tuple[list[CaseFacts], list[FailedCase]]:
    """Read each case of a VerSe folder or an H5 once.

    Args:
        data_path: data in any layout of ``verse_utils.catalogue``, or an H5 of ``preprocessing.py``.
        edition: 19, 20 or both; of a folder only.
        workers: processes.
        exclude: ids or subjects to leave out; of a folder only.

    Returns:
        Facts of the cases, and the cases that can't be read; both sorted by split and id.

    Raises:
        UserError: no such file or folder, no case in it, files that don't pair, no H5 of this project.
    """
    from tqdm import tqdm

    from utils.dataset_facts.case_facts import FailedCase, facts_or_failure, scan_facts, stored_facts

    cases: Sequence[Any]
    read: Callable[[Any], CaseFacts]
    if data_path.suffix == ".h5" or (data_path.is_file() and data_path.suffix != ".csv"):
        cases, read = _stored_names(data_path), partial(stored_facts, h5_path=data_path)
    else:
        chosen = Chosen(exclude=exclude)
        cases, read = list_cases([data_path], edition, chosen), scan_facts
        chosen.check_used(data_path)
    results = run_all(partial(facts_or_failure, read=read), cases, workers)
    facts, failures = [], []
    for result in tqdm(results, total=len(cases), desc="statistics", unit="case"):
        if isinstance(result, FailedCase):
            failures.append(result)
        else:
            facts.append(result)
    order = {(case.split, case.case_id): position for position, case in enumerate(cases)}
    facts.sort(key=lambda one: order[one.split, one.case_id])
    failures.sort(key=lambda one: order[one.split, one.case_id])
    return facts, failures


def _stored_names(h5_path: Path) -> list[Any]:
    from utils.dataset_facts.case_facts import StoredName
    from utils.files.h5_cases import H5Cases

    store = H5Cases(h5_path)
    names = [StoredName(split, case_id) for split in SPLITS for case_id in store.case_ids(split)]
    if not names:
        raise UserError(f"{h5_path}: holds no case; make it anew with preprocessing.py")
    return names


def summarise(cases: Sequence[CaseFacts]) -> dict[str, Any]:
    """All cases in numbers, in JSON's types.

    Returns:
        Counts by split, the spread of grids, ``levels`` (for each vertebra that is seen: scans, patients, volumes),
        and histograms of HU (voxels in each bin, by split).
    """
    from utils.dataset_facts.case_facts import BIN_HU, FIRST_EDGE_HU, histograms

    def spread_by_axis(name: str) -> dict[str, dict[str, float]]:
        return {axis: _spread([getattr(case, name)[at] for case in cases]) for at, axis in enumerate(_AXES)}

    def medians(place: str) -> dict[str, float]:
        return _spread([getattr(case, place).median for case in cases if getattr(case, place)])

    return {
        "by_split": _by_split(cases),
        "orientations": dict(Counter(case.orientation for case in cases).most_common()),
        "size_vox": spread_by_axis("size_vox"),
        "spacing_mm": spread_by_axis("spacing_mm"),
        "field_of_view_mm": spread_by_axis("field_of_view_mm"),
        "median_hu_in_bone": medians("hu_in_bone"),
        "median_hu_outside": medians("hu_outside"),
        "volume_ml": _spread([ml for case in cases for ml in case.volume_ml.values()]),
        "levels": _levels(cases),
        "hu_histogram": {
            "first_edge_hu": FIRST_EDGE_HU,
            "bin_hu": BIN_HU,
            "voxels_in_bone": histograms(cases, "hu_in_bone"),
            "voxels_outside": histograms(cases, "hu_outside"),
        },
    }


def _by_split(cases: Sequence[CaseFacts]) -> dict[str, dict[str, int | None]]:
    """Scans, patients, vertebrae and centroid lists of each split and of ``all``."""
    rows: dict[str, dict[str, int | None]] = {}
    for name in (*SPLITS, "all"):
        members = [case for case in cases if name in (case.split, "all")]
        is_known = all(case.has_centroids is not None for case in members)
        rows[name] = {
            "scans": len(members),
            "patients": len({case.patient for case in members}),
            "vertebrae": sum(len(case.volume_ml) for case in members),
            "scans_with_centroids": sum(bool(case.has_centroids) for case in members) if is_known else None,
        }
    return rows


def _levels(cases: Sequence[CaseFacts]) -> dict[str, dict[str, Any]]:
    levels = {}
    for level in (VERTEBRA_NAMES[label] for label in ANATOMICAL_ORDER):
        members = [case for case in cases if level in case.volume_ml]
        if members:
            levels[level] = {
                "scans": len(members),
                "patients": len({case.patient for case in members}),
                "volume_ml": _spread([case.volume_ml[level] for case in members]),
            }
    return levels


def _spread(values: Sequence[float]) -> dict[str, float]:
    import numpy as np

    if not values:
        return {}
    numbers = np.array([np.mean(values), np.median(values), np.min(values), np.max(values)]).round(4)
    return dict(zip(("mean", "median", "min", "max"), numbers.tolist(), strict=True))


def case_row(case: CaseFacts) -> dict[str, Any]:
    """A case in JSON's types, without its histograms."""
    row = asdict(case)
    for place in ("hu_in_bone", "hu_outside"):
        if row[place]:
            del row[place]["histogram"]
    return row


def print_summary(summary: dict[str, Any]) -> None:
    """Print the most important numbers as two tables."""
    columns = ("scans", "patients", "vertebrae", "scans_with_centroids")
    print(f"{'':30}" + "".join(f"{column.removeprefix('scans_').replace('_', ' '):>16}" for column in columns))
    for split, row in summary["by_split"].items():
        print(f"{split:30}" + "".join(f"{'-' if row[name] is None else row[name]:>16}" for name in columns))
    lines = {
        f"{name} {axis} ({where})": summary[key][axis]
        for key, name in (("spacing_mm", "spacing mm"), ("field_of_view_mm", "field of view mm"))
        for axis, where in _AXES.items()
    }
    lines["median HU in bone"] = summary["median_hu_in_bone"]
    lines["median HU outside"] = summary["median_hu_outside"]
    lines["volume of a vertebra ml"] = summary["volume_ml"]
    print(f"\n{'':30}" + "".join(f"{name:>16}" for name in ("median", "min", "max")))
    for name, spread in lines.items():
        if spread:
            print(f"{name:30}" + "".join(f"{spread[key]:16.4g}" for key in ("median", "min", "max")))


def _grouped(quantities: Iterable[str]) -> str:
    """Quantities such as "spacing_mm X" and "spacing_mm Y", by their first words."""
    parts: dict[str, list[str]] = defaultdict(list)
    for quantity in quantities:
        name, part = quantity.split()
        parts[name].append(part)
    return ", ".join(f"{name} {' '.join(found)}" for name, found in parts.items())


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser(description="Statistics and outliers of a data set.")
    add = parser.add_argument
    add("--data_path", type=Path, required=True, help="a VerSe folder, or an H5 of preprocessing.py")
    add("--output", type=Path, required=True, help="folder of statistics.json and the pictures")
    add_edition_argument(parser, "of a folder: VerSe19 or VerSe20, or both as one data set (default 19)")
    add("--exclude", nargs="+", default=(), metavar="ID", help="of a folder: case ids or subjects to leave out")
    add("--workers", type=int, help="processes (default: one per core)")
    arguments = parser.parse_args()
    if arguments.workers is not None and arguments.workers < 1:
        parser.error("--workers must be positive")
    if arguments.exclude and arguments.data_path.is_file():
        parser.error("--exclude is for folders; leave the cases out of the H5 with preprocessing.py --exclude")
    if arguments.output.is_file():
        parser.error(f"--output {arguments.output}: is a file; give a folder")
    return arguments


@command
def main() -> None:
    """Write statistics and pictures, and print a summary; exit code 1 if a case can't be read."""
    arguments = parse_arguments()
    workers = arguments.workers or usable_cores()
    cases, failures = gather(arguments.data_path, arguments.dataset_edition, workers, arguments.exclude)
    for failure in failures:
        print(f"error: {failure.error}", file=sys.stderr)
    if not cases:
        raise UserError(f"{arguments.data_path}: none of its {len(failures)} cases can be read")
    from utils.dataset_facts.figures import draw_grids, draw_intensities, draw_vertebrae
    from utils.dataset_facts.outliers import FEWEST_VALUES, find_outliers
    from utils.visualize import save_figure

    outliers, not_judged = find_outliers(cases)
    content = {
        "data": arguments.data_path.name,
        "summary": summarise(cases),
        "outliers": [asdict(outlier) for outlier in outliers],
        "too_few_values_for_quartiles": not_judged,
        "failed": [asdict(failure) for failure in failures],
        "cases": [case_row(case) for case in cases],
    }
    json_path = arguments.output / "statistics.json"
    write_json(json_path, content)
    figures = {"grids": draw_grids, "intensities": draw_intensities, "vertebrae": draw_vertebrae}
    for name, draw in figures.items():
        save_figure(draw(cases), arguments.output / f"{name}.png")

    print_summary(content["summary"])
    print(f"\noutliers: {len(outliers)} in {len({outlier.case_id for outlier in outliers})} cases")
    for outlier in outliers[:10]:
        print(f"  {outlier.case_id}: {outlier.reason}")
    if len(outliers) > 10:
        print(f"  and {len(outliers) - 10} more in {json_path.name}")
    if not_judged:
        print(f"under {FEWEST_VALUES} values, so not judged by quartiles: {_grouped(not_judged)}")
    print(*[json_path, *(arguments.output / f"{name}.png" for name in figures)], sep="\n")
    if failures:
        sys.exit(1)


if __name__ == "__main__":
    main()
