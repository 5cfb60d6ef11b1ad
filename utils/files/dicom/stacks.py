"""Where slices lie: one affine that describes all of them, or the slice that leaves it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from utils.files.dicom.headers import Slice
from utils.files.dicom.pixels import stored_frames
from verse_utils.errors import UserError
from verse_utils.images import LEAST_SLICES, check_slice_counts

# Slices closer than this lie on one position.
SAME_POSITION_MM = 0.01
# How far a slice may lie off the affine that fits them all: as positions are rounded to 0.1 mm in three directions, or
# as this share of the spacing.
POSITION_TOLERANCE_MM, POSITION_TOLERANCE = 0.1, 0.1
# Slices that differ by less have one orientation and one spacing: of the two steps in the plane.
_STEP_TOLERANCE_MM = 1e-3
# A picture whose plane is turned by more against the slices is a scout among them. Slices are never turned so far.
_SCOUT_COSINE = 0.7
# Two gaps of one spacing differ by less, as a share.
_SAME_GAP = 0.1


class Stack(NamedTuple):
    """Slices in the order of K, and their place.

    Attributes:
        slices: ordered.
        planes: (first, second, share of the second) slice of each plane along K; where slices lie evenly, each is one
            slice itself.
        affine: (4, 4), voxel indices to RAS millimetres.
        remarks: what the user should know.
    """

    slices: list[Slice]
    planes: list[tuple[int, int, float]]
    affine: np.ndarray
    remarks: list[str]


def stack_slices(place: Path, slices: Sequence[Slice], resample: bool = False) -> Stack:
    """Order the slices of a series and fit one affine to them.

    Args:
        place: of the series, for messages.
        slices: at least one.
        resample: put slices whose spacing varies on an even grid, the finest of theirs.

    Raises:
        UserError: they make no even stack; the slice that leaves it is named.
    """
    kept, remarks = _without_scouts(place, list(slices))
    normal = _normal(kept[0])
    kept.sort(key=lambda one: float(one.position_mm @ normal))
    kept, copies = _without_copies(place, kept, normal)
    if copies:
        remarks.append(f"{place}: {len(copies)} copies of slices left out, {copies[0]} the first")
    check_slice_counts((*kept[0].size, len(kept)), place)
    positions_mm = np.array([one.position_mm for one in kept])
    planes = [(k, k, 0.0) for k in range(len(kept))]
    origin_mm, step_mm, off_mm = _fit(positions_mm)
    if resample and (off_mm > _tolerance_mm(step_mm)).any():
        origin_mm, step_mm, planes = _even_planes(place, kept, positions_mm, normal)
        gaps = _spacings(positions_mm @ normal)
        remarks.append(f"{place}: slices {gaps} mm apart, resampled to {np.linalg.norm(step_mm):.4g} mm")
    else:
        _check_even(place, kept, positions_mm @ normal, off_mm, step_mm)
    origin_mm, step_mm = _at_right_angles(origin_mm, step_mm, normal, len(planes))
    matrix = np.column_stack([*kept[0].steps_mm, step_mm])
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ nib.affines.from_matvec(matrix, origin_mm)  # LPS to RAS
    return Stack(kept, planes, affine, remarks)


def _normal(one: Slice) -> np.ndarray:
    """(3,) of length 1, across a slice."""
    normal: np.ndarray = np.cross(*(step_mm / np.linalg.norm(step_mm) for step_mm in one.steps_mm))
    return normal


def _without_scouts(place: Path, slices: list[Slice]) -> tuple[list[Slice], list[str]]:
    """Slices of one size, spacing and orientation, without a scout among them. Raises UserError for others."""
    groups: list[list[Slice]] = []
    for one in slices:
        group = next((group for group in groups if _is_alike(group[0], one)), None)
        if group is None:
            groups.append([one])
        else:
            group.append(one)
    kept, *others = sorted(groups, key=len, reverse=True)
    scouts = [one for group in others for one in group]
    for one in scouts:
        if len(scouts) >= LEAST_SLICES or abs(_normal(one) @ _normal(kept[0])) > _SCOUT_COSINE:
            what = f"size, spacing or orientation differ from {kept[0].name}"
            raise UserError(f"{one.file.place / one.name}: {what}; give one series")
    if not scouts:
        return kept, []
    return kept, [f"{place}: {len(scouts)} scouts among the slices left out, {scouts[0].name} the first"]


def _is_alike(one: Slice, other: Slice) -> bool:
    return one.size == other.size and np.allclose(one.steps_mm, other.steps_mm, atol=_STEP_TOLERANCE_MM)


def _without_copies(place: Path, slices: list[Slice], normal: np.ndarray) -> tuple[list[Slice], list[str]]:
    """Leave out slices, ordered, that repeat the one before; and their names. Raises UserError for two at one place."""
    kept, copies = slices[:1], []
    for one in slices[1:]:
        before = kept[-1]
        if abs((one.position_mm - before.position_mm) @ normal) >= SAME_POSITION_MM:
            kept.append(one)
        elif _is_copy(before, one):
            copies.append(one.name)
        else:
            names = f"{before.name} and {one.name}"
            raise UserError(f"{place}: {names} lie on one position; export the series again, one phase alone")
    return kept, copies


def _is_copy(one: Slice, other: Slice) -> bool:
    """Whether two slices at one height show the same."""
    if not np.allclose(one.position_mm, other.position_mm, atol=SAME_POSITION_MM):
        return False
    images = []
    for each in (one, other):
        try:
            with each.file.open_whole() as stream:
                (words,) = stored_frames(stream, each.syntax, [each.frame])
        except Exception:  # it will be named where it is read
            return False
        images.append(words if isinstance(each.meaning, str) else each.meaning.to_hu(words))
    return np.array_equal(images[0], images[1])


def _fit(positions_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least squares: (3,) origin and step of the line that fits (K, 3) positions, and (K,) how far each lies off."""
    k = np.arange(len(positions_mm)) - (len(positions_mm) - 1) / 2
    step_mm = k @ positions_mm / (k @ k)
    middle_mm = positions_mm.mean(axis=0)
    off_mm = np.linalg.norm(positions_mm - middle_mm - k[:, None] * step_mm, axis=1)
    return middle_mm + k[0] * step_mm, step_mm, off_mm


def _tolerance_mm(step_mm: np.ndarray) -> float:
    return max(POSITION_TOLERANCE_MM, POSITION_TOLERANCE * float(np.linalg.norm(step_mm)))


def _at_right_angles(
    origin_mm: np.ndarray, step_mm: np.ndarray, normal: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The same line, exactly along the normal where rounded positions alone lead it off."""
    upright_mm = (step_mm @ normal) * normal
    if np.linalg.norm(step_mm - upright_mm) * (count - 1) > POSITION_TOLERANCE_MM:
        return origin_mm, step_mm
    return origin_mm + (step_mm - upright_mm) * (count - 1) / 2, upright_mm


def _check_even(
    place: Path, slices: list[Slice], heights_mm: np.ndarray, off_mm: np.ndarray, step_mm: np.ndarray
) -> None:
    """Raise UserError unless all slices lie on the fitted affine; the message says why one doesn't."""
    if (off_mm <= _tolerance_mm(step_mm)).all():
        return
    gaps_mm = np.diff(heights_mm)
    spacing_mm = float(np.median(gaps_mm))
    at = int(np.argmax(np.abs(gaps_mm - spacing_mm)))
    gap_mm = float(gaps_mm[at])
    axis = int(np.argmax(np.abs(_normal(slices[0]))))
    low, high = slices[at], slices[at + 1]
    places = f"{'xyz'[axis]} = {low.position_mm[axis]:.1f} and {high.position_mm[axis]:.1f} mm"
    sizes = f"(spacing {_text(spacing_mm)}, gap {_text(gap_mm)}), before {high.name}"
    if abs(gap_mm - spacing_mm) <= max(_SAME_GAP * spacing_mm, 2 * POSITION_TOLERANCE_MM):
        raise _off_the_line(place, slices, off_mm)
    if len(runs := _runs(gaps_mm)) > 1 and min(map(len, runs)) > 1:
        raise UserError(
            f"{place}: its slices have several spacings, {_spacings(heights_mm)} mm; export one of them, "
            "or give --resample_series"
        )
    multiple = gap_mm / spacing_mm
    if multiple > 1.5 and abs(multiple - round(multiple)) < _SAME_GAP:
        what = f"{'slice' if round(multiple) == 2 else f'{round(multiple) - 1} slices'} missing between"
    else:
        what = "slices too close between" if multiple < 1 else "slices too far apart between"
    raise UserError(f"{place}: {what} {places} {sizes}; export the series again, or give --resample_series")


def _off_the_line(place: Path, slices: list[Slice], off_mm: np.ndarray) -> UserError:
    """That one slice, the worst, leaves the line of the others."""
    worst = int(np.argmax(off_mm))
    what = f"{slices[worst].name} lies {off_mm[worst]:.1f} mm off the line of the others"
    return UserError(f"{place}: {what}; export the series again")


def _runs(gaps_mm: np.ndarray) -> list[list[float]]:
    """Gaps sorted into runs of like ones, in order."""
    runs: list[list[float]] = []
    for gap_mm in map(float, gaps_mm):
        if runs and abs(gap_mm - np.mean(runs[-1])) <= max(_SAME_GAP * gap_mm, 2 * POSITION_TOLERANCE_MM):
            runs[-1].append(gap_mm)
        else:
            runs.append([gap_mm])
    return runs


def _spacings(heights_mm: np.ndarray) -> str:
    """The spacings of a stack, the most frequent first."""
    counts: Counter[str] = Counter()
    for run in _runs(np.diff(heights_mm)):
        counts[_text(float(np.mean(run)))] += len(run)
    return " and ".join(text for text, _ in counts.most_common(4))


def _text(length_mm: float) -> str:
    """To a thousandth, with one decimal at least."""
    return f"{length_mm:.1f}" if abs(length_mm * 10 - round(length_mm * 10)) < 0.05 else f"{length_mm:.3g}"


def _even_planes(
    place: Path, slices: list[Slice], positions_mm: np.ndarray, normal: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int, float]]]:
    """Even planes through uneven slices: origin, step, and the two slices that each is interpolated from."""
    heights_mm = positions_mm @ normal
    # Along the normal, where do the slices lie sideways? On a line, or they make no stack at all.
    slope_mm, start_mm = np.polynomial.polynomial.polyfit(heights_mm, positions_mm, 1)[::-1]
    off_mm = np.linalg.norm(positions_mm - start_mm - heights_mm[:, None] * slope_mm, axis=1)
    spacing_mm = min(float(np.mean(run)) for run in _runs(np.diff(heights_mm)))
    if (off_mm > _tolerance_mm(spacing_mm * slope_mm)).any():
        raise _off_the_line(place, slices, off_mm)
    count = int((heights_mm[-1] - heights_mm[0]) / spacing_mm + 1e-3) + 1
    wanted_mm = heights_mm[0] + spacing_mm * np.arange(count)
    lower = np.clip(np.searchsorted(heights_mm, wanted_mm + 1e-6, side="right") - 1, 0, len(slices) - 2)
    shares = np.clip((wanted_mm - heights_mm[lower]) / np.diff(heights_mm)[lower], 0, 1)
    planes = [(int(k), int(k) + 1, float(share)) for k, share in zip(lower, shares, strict=True)]
    return start_mm + heights_mm[0] * slope_mm, spacing_mm * slope_mm, planes
