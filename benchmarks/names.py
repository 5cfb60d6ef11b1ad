"""How often vertebrae get their right names, how far off their centres are, and what their masks are worth.

    python -m verse_utils.phantom --field_of_view trunk --output trunks --training 0 --validation 0 --test 12 --seed 41
    python benchmarks/names.py --data_path trunks --masks

Each test case is named whole, and cut: a part that begins and ends anywhere, and shows four vertebrae or more. Cases
with an L6, a T13 or no T12 are counted apart. A vertebra is identified if the nearest of all predicted centres has
its name and lies within 20 mm. With ``--masks``, the scans are segmented, too, one vertebra at a time: the centres that
inference writes, which are those of the masks' bodies, are scored the same way, and the mean Dice of the vertebrae by
name is compared with that of a binary segmenter's mask divided among the reference's nearest centres.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np

from metrics.vertebra_metrics import dice_of_vertebrae, identify
from prediction.localisation import locate_spine
from prediction.names.column import Vertebra
from prediction.names.naming import NamedVertebra
from prediction.options import Options
from prediction.pretrained import pretrained_checkpoint
from prediction.whole_scans import Models, load_models, segment
from utils.files.find_scans import ScanSource
from utils.files.scans import open_scan
from utils.geometry.body_centres import body_centres
from utils.misc import OneLineParser, command
from utils.tasks import HEATMAP, SEGMENTATION
from verse_utils.cases import Case
from verse_utils.catalogue import list_cases
from verse_utils.centroids import read_centroids
from verse_utils.images import open_image, read_case
from verse_utils.labels import ANATOMICAL_ORDER, L6, T13, VERTEBRA_NAMES

LEAST_VERTEBRAE = 4  # of a part
T11, T12, L1 = 18, 19, 20


def centres_of(case: Case, label: np.ndarray, affine: np.ndarray) -> dict[int, np.ndarray]:
    """Centres (3,) in mm of a case's vertebrae: the listed ones, else those of the mask's bodies."""
    if case.centroid_path is not None:
        centres = read_centroids(case.centroid_path).to_world(affine, label.shape)
        return {number: np.array(centre) for number, centre in centres.items() if number in ANATOMICAL_ORDER}
    centres_vox = body_centres(label, nib.affines.voxel_sizes(affine))
    return {number: nib.affines.apply_affine(affine, centre) for number, centre in centres_vox.items()}


def anomaly(label: np.ndarray) -> str:
    """What is unusual in a spine; "" for the usual one."""
    shown = set(np.unique(label).tolist())
    if {T11, L1} <= shown and not {T12, T13} & shown:
        return "no T12"
    return "L6" if L6 in shown else "T13" if T13 in shown else ""


def draw_part(
    centres_mm: dict[int, np.ndarray], affine: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator
) -> slice | None:
    """Stored slices from somewhere beside one vertebra to somewhere beside another; None of a scan with few of them."""
    axis = int(np.argmax(np.abs(affine[2, :3])))
    index = [nib.affines.apply_affine(np.linalg.inv(affine), centre)[axis] for centre in centres_mm.values()]
    if len(index) <= LEAST_VERTEBRAE:
        return None
    count = int(rng.integers(LEAST_VERTEBRAE, len(index)))
    first = int(rng.integers(len(index) - count + 1))
    half_vox = abs(np.mean(np.diff(index))) / 2
    within = sorted(index)[first : first + count]
    low, high = within[0] - half_vox * rng.uniform(1, 2), within[-1] + half_vox * rng.uniform(1, 2)
    return slice(max(round(low), 0), min(round(high), shape[axis]))


class View(NamedTuple):
    """A scan or a part of it: what it is, its file, the centres (3,) in mm that it shows, and its reference mask."""

    name: str
    path: Path
    centres_mm: dict[int, np.ndarray]
    label: np.ndarray


def views(case: Case, seed: int, folder: Path) -> Iterator[View]:
    """A case whole and cut."""
    images = read_case(case)
    centres_mm = centres_of(case, images.label, images.affine)
    yield View("whole", case.image_path, centres_mm, images.label)
    part = draw_part(centres_mm, images.affine, images.label.shape, np.random.default_rng(seed))
    if part is not None:
        axis = int(np.argmax(np.abs(images.affine[2, :3])))
        where = tuple(part if one == axis else slice(None) for one in range(3))
        cut = open_image(case.image_path).slicer[where]
        path = folder / "part.nii"
        nib.save(cut, path)
        to_index = np.linalg.inv(cut.affine)
        shown = {
            number: centre
            for number, centre in centres_mm.items()
            if 0 <= nib.affines.apply_affine(to_index, centre)[axis] <= cut.shape[axis] - 1
        }
        yield View("cut", path, shown, images.label[where])


def score(found: Sequence[Vertebra | NamedVertebra], centres_mm: dict[int, np.ndarray]) -> dict[str, Any]:
    """How the names of a scan agree with the reference."""
    names = identify({one.label: np.array(one.centre_mm) for one in found}, centres_mm)
    heights = [one.centre_mm[2] for one in found]
    places = [ANATOMICAL_ORDER.index(one.label) for one in found]
    in_order = heights == sorted(heights, reverse=True) and places == sorted(set(places))
    return {
        "vertebrae": len(centres_mm),
        "identified": sum(names.identified.values()),
        "errors_mm": list(names.error_mm.values()),
        "violations": int(not in_order),
        "wrong": [VERTEBRA_NAMES[number] for number, is_right in names.identified.items() if not is_right],
    }


def score_masks(view: View, models: Models, binary: Models) -> dict[str, Any]:
    """Names as written; Dice of vertebrae by name, and of the binary mask divided among the reference's centres."""
    from scipy.spatial import cKDTree

    found = segment(view.path, models, Options(labels="vertebrae"))
    other = segment(view.path, binary)
    bone = np.argwhere(other.mask > 0)
    places_mm = nib.affines.apply_affine(open_image(view.path).affine, bone)
    _, nearest = cKDTree(np.array(list(view.centres_mm.values()))).query(places_mm)
    other.mask[tuple(bone.T)] = np.array(list(view.centres_mm), np.uint8)[nearest]
    of_vertebrae = [dice_of_vertebrae(mask, view.label) for mask in (found.mask, other.mask)]
    by_name, by_centre = (float(np.mean([dice.get(label, 0) for label in view.centres_mm])) for dice in of_vertebrae)
    times = {"seconds": sum(found.seconds.values()), "binary_seconds": sum(other.seconds.values())}
    return {"dice_by_name": by_name, "dice_by_centre": by_centre, **times, **score(found.vertebrae, view.centres_mm)}


@command
def main() -> None:
    """Print a row for each view, the sums of views and anomalies, and the masks' Dice."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data_path", type=Path, nargs="+", required=True, help="data whose test cases are named")
    names, single = (pretrained_checkpoint(task, "vertebrae") for task in (HEATMAP, SEGMENTATION))
    add("--heatmap_model", type=Path, default=names, help="localiser that names vertebrae")
    add("--segmentation_model", type=Path, default=single, help="segmenter of single vertebrae, for --masks")
    add("--masks", action="store_true", help="segment the scans, too")
    add("--seed", type=int, default=0, help="of the cuts")
    arguments = parser.parse_args()
    models = load_models(arguments.segmentation_model, arguments.heatmap_model)
    binary = load_models(pretrained_checkpoint(SEGMENTATION), pretrained_checkpoint(HEATMAP))
    assert models.localiser is not None
    rows: list[dict[str, Any]] = []
    for number, case in enumerate(one for one in list_cases(arguments.data_path, 19) if one.split == "test"):
        kind = anomaly(read_case(case).label) or "usual"
        with TemporaryDirectory() as folder:
            for view in views(case, arguments.seed + number, Path(folder)):
                spine = locate_spine(open_scan(ScanSource(view.path, "")), models.localiser, Options.margin_mm)
                told = {"kind": kind, "view": view.name}
                rows.append({**told, "by": "heatmaps", **score(spine.vertebrae, view.centres_mm)})
                if arguments.masks:
                    rows.append({**told, "by": "masks", **score_masks(view, models, binary)})
                for row in rows[-2 if arguments.masks else -1 :]:
                    dice = f"{row['dice_by_name']:.3f} {row['dice_by_centre']:.3f}" if "dice_by_name" in row else ""
                    line = f"{view.name:5} {kind:6} {row['by']:8} {_shown([row])} {dice} {' '.join(row['wrong'])}"
                    print(f"{case.case_id:24} {line}", flush=True)
    print("\n| spine | view | named by | scans | vertebrae | identification rate | order violated | error, mm |")
    print("|---|---|---|---|---|---|---|---|")
    for kind in ("usual", "L6", "T13", "no T12", ""):
        for name in ("whole", "cut", ""):
            for by in ("heatmaps", "masks"):
                part = [
                    row for row in rows if row["by"] == by and kind in ("", row["kind"]) and name in ("", row["view"])
                ]
                if part:
                    print(f"| {kind or 'all'} | {name or 'both'} | {by} | {len(part)} {_shown(part)}")
                    _print_dice(part)


def _print_dice(rows: list[dict[str, Any]]) -> None:
    """Means over scans with masks, if these are such."""
    if rows[0]["by"] == "masks":
        by_name, by_centre = (np.mean([row[name] for row in rows]) for name in ("dice_by_name", "dice_by_centre"))
        seconds, binary_seconds = (sum(row[name] for row in rows) for name in ("seconds", "binary_seconds"))
        share = f"{seconds / binary_seconds:.2f} of the time of a binary mask"
        print(f"  mean Dice by name {by_name:.3f}, by nearest centre {by_centre:.3f}; {share}")


def _shown(rows: list[dict[str, Any]]) -> str:
    vertebrae, identified, violations = (
        sum(row[name] for row in rows) for name in ("vertebrae", "identified", "violations")
    )
    errors_mm = [error for row in rows for error in row["errors_mm"]]
    error = f"{np.mean(errors_mm):.1f}" if errors_mm else "–"
    return f"| {vertebrae} | {identified / vertebrae:.3f} | {violations} | {error} |"


if __name__ == "__main__":
    main()
