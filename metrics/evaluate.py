"""Score masks, of this project or of any other tool, by their reference masks.

    python -m metrics.evaluate results/ verse19/ --output scores

Each prediction is paired with the reference mask of the same name, apart from endings such as _ct, _vertebrae and _seg.
Each file that can't be scored, and each reference mask without a prediction, is named on a line; the others are scored
all the same (exit code 1).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.misc import OneLineParser, command
from verse_utils.errors import UserError
from verse_utils.files.writing import write_csv, write_json
from verse_utils.numberings import NUMBERINGS, VERSE

if TYPE_CHECKING:
    from metrics.mask_scores import MaskScores


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("predictions", type=Path, help="folder of NIfTI masks")
    add("masks", type=Path, help="folder of the reference masks, at any depth, such as a VerSe folder")
    add("--output", type=Path, help="folder for evaluation.json and evaluation.csv, a row a case")
    add("--labels", choices=("binary", "vertebrae"), default="binary", help="vertebra or not (default), or each")
    add(
        "--prediction_labels",
        choices=tuple(NUMBERINGS),
        help="what the numbers of the predictions mean: VerSe's, unless another tool's are said here or may be meant",
    )
    trim = "leave out so many mm at the upper and lower end of the field of view, where cut vertebrae aren't annotated"
    add("--trim_ends_mm", type=float, default=0.0, metavar="MM", help=f"{trim} (default 0)")
    add("--resample", action="store_true", help="put predictions on their reference masks' grids, by the nearest voxel")
    add("--json", action="store_true", help="print the content of evaluation.json instead of the table")
    arguments = parser.parse_args()
    for folder in (arguments.predictions, arguments.masks):
        if not folder.is_dir():
            parser.error(f"{folder}: no such folder of masks")
    if arguments.predictions.resolve() == arguments.masks.resolve():
        parser.error(f"{arguments.masks}: holds the predictions; give the folder of the reference masks")
    if arguments.output is not None and arguments.output.is_file():
        parser.error(f"--output {arguments.output}: is a file; give a folder")
    if not 0 <= arguments.trim_ends_mm < float("inf"):
        parser.error(f"--trim_ends_mm {arguments.trim_ends_mm:g}: give 0 or more")
    return arguments


def evaluate_folders(
    predictions: Path,
    masks: Path,
    labels: str,
    trim_ends_mm: float,
    prediction_labels: str | None = None,
    resample: bool = False,
) -> tuple[MaskScores, list[str]]:
    """Score all predictions in a folder.

    Args:
        predictions, masks: folders of NIfTI masks and of their reference masks.
        labels, trim_ends_mm, prediction_labels, resample: see ``MaskScores``.

    Returns:
        The scores, and a line for each case that has none.

    Raises:
        UserError: no prediction in the folder.
    """
    from tqdm import tqdm

    from metrics.mask_scores import MaskScores
    from metrics.reference_masks import case_name, find_masks, find_reference_mask

    paths = find_masks(predictions)
    if not paths:
        raise UserError(f"{predictions}: no masks here; give a folder of NIfTI files (.nii, .nii.gz)")
    cases = Counter(case_name(path) for path in paths)
    scores, failures = MaskScores(labels, trim_ends_mm, prediction_labels, resample), []
    for path in tqdm(paths, desc="evaluate", unit="case", disable=None):
        case = case_name(path)
        try:
            if cases[case] > 1:
                raise UserError(f"{path}: one of {cases[case]} predictions of {case}; leave one")
            scores.add(case, path, find_reference_mask(path, masks))
        except UserError as error:
            failures.append(str(error))
    own = {path.resolve() for path in paths}
    for mask in find_masks(masks):
        if case_name(mask) not in cases and mask.resolve() not in own:
            failures.append(f"{mask}: no prediction of {case_name(mask)} in {predictions}; add it or move the mask")
    return scores, failures


def print_table(scores: MaskScores, settings: dict[str, Any]) -> None:
    """Print the mean of each metric over cases, then the metrics over all vertebrae, with their 95 % intervals."""
    cases = len(scores.handler.rows)
    print(f"{cases} case{'s' if cases != 1 else ''}, labels: {settings['labels']}, {settings['field_of_view']}")
    if not cases:
        return
    print(f"{'':26} {'mean':>9}  95 % interval")
    for name, numbers in scores.handler.summary().items():
        if name in scores.handler.metrics or name.startswith("dice_"):
            print(f"{name:26} {numbers['mean']:9.3f}  {_shown(numbers['ci95'])}")
    for name, numbers in scores.vertebra_summary().items():
        print(
            f"{name:26} {numbers['value']:9.3f}  {_shown(numbers['ci95']):18} over {numbers['count']} {numbers['over']}"
        )


def _shown(interval: list[float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


@command
def main() -> None:
    """Score everything, go on where a case fails, and end with a table; exit code 1 where one failed."""
    arguments = parse_arguments()
    trimmed_mm = arguments.trim_ends_mm
    scores, failures = evaluate_folders(
        arguments.predictions,
        arguments.masks,
        arguments.labels,
        trimmed_mm,
        arguments.prediction_labels,
        arguments.resample,
    )
    trimmed = f"{trimmed_mm:g} mm left out at the upper and lower end of the field of view"
    settings = {
        "predictions": str(arguments.predictions),
        "masks": str(arguments.masks),
        "labels": arguments.labels,
        "prediction_labels": arguments.prediction_labels or VERSE.name,
        "trim_ends_mm": trimmed_mm,
        "field_of_view": trimmed if trimmed_mm else "ends of the field of view included",
        "grid": "each reference mask's own; " + ("others resampled" if arguments.resample else "others refused"),
        "ci95": "BCa bootstrap over cases",
    }
    content = {**scores.as_json(), "failed": failures, "settings": settings}
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    if arguments.output is not None:
        write_json(arguments.output / "evaluation.json", content)
        write_csv(arguments.output / "evaluation.csv", content["cases"])
    if arguments.json:
        print(json.dumps(content, indent=2, allow_nan=False))
    else:
        print_table(scores, settings)
    if failures:
        sys.exit(1)


if __name__ == "__main__":
    main()
