"""Whether a scan's values are HU, told by what every CT of a trunk holds: fat at -100 HU, tissue, and bone over 200."""

from __future__ import annotations

import numpy as np

# A CT with air around the body reaches this, one with a vertebra exceeds this.
AIR_BELOW_HU = -500
BONE_ABOVE_HU = 200

# Fat has about -100 HU, and every body has some; what is never lower than this was windowed, scaled or shifted.
_FAT_BELOW_HU = -50
# Of the voxels over 200 HU, those over 700 (cortical bone, metal) make 27 % at most in eight real scans, and 69 % or
# more once these are raised by 1024.
_DENSE_ABOVE_HU = 700
_MOST_DENSE_SHARE = 0.65
_LEAST_DENSE_SHARE_OF_ALL = 0.05
# Noise spreads values; so many voxels with the greatest one were cut off there, unless a scanner can't exceed it.
_MOST_AT_TOP, _LEAST_VOXELS_AT_TOP = 0.002, 20
_TOP_OF_SCANNERS_HU = 2000

_INT16 = np.iinfo(np.int16)


def count_hu(values_hu: np.ndarray) -> np.ndarray:
    """(65536,) numbers of voxels of each int16 value, from -32768 on."""
    shifted = values_hu.reshape(-1).astype(np.int32) - _INT16.min
    return np.bincount(shifted, minlength=_INT16.max - _INT16.min + 1)


def why_not_hu(counts: np.ndarray) -> str | None:
    """Why values can't be HU of a trunk, in a few words; None where they can.

    Args:
        counts: (65536,) of ``count_hu``, of a scan or of an even sample of it.
    """
    seen = np.flatnonzero(counts) + _INT16.min
    least_hu, greatest_hu = int(seen[0]), int(seen[-1])
    if least_hu > _FAT_BELOW_HU:
        return f"least value is {least_hu}, but fat has -100 HU: windowed, scaled, or without its intercept"
    if greatest_hu <= BONE_ABOVE_HU:
        return f"greatest value is {greatest_hu}, but bone has over {BONE_ABOVE_HU} HU: windowed or scaled"
    over_bone, dense = (int(counts[hu - _INT16.min + 1 :].sum()) for hu in (BONE_ABOVE_HU, _DENSE_ABOVE_HU))
    share = dense / int(counts.sum())
    if dense > _MOST_DENSE_SHARE * over_bone and share > _LEAST_DENSE_SHARE_OF_ALL:
        return f"{share:.0%} of the values exceed {_DENSE_ABOVE_HU} HU, as only dense bone does: without its intercept"
    return None


def why_unlike_ct(counts: np.ndarray) -> str | None:
    """What is unusual in values that can be HU, in a few words; None where nothing is. Arguments as ``why_not_hu``."""
    seen = np.flatnonzero(counts)
    least_hu, greatest_hu = (int(seen[at]) + _INT16.min for at in (0, -1))
    at_top = int(counts[seen[-1]])
    share = at_top / counts.sum()
    if greatest_hu < _TOP_OF_SCANNERS_HU and share > _MOST_AT_TOP and at_top >= _LEAST_VOXELS_AT_TOP:
        return f"{share:.1%} of the voxels have the greatest value, {greatest_hu} HU: windowed"
    return why_no_air(least_hu)


def why_too_great(greatest_hu: int) -> str | None:
    """What is said of a scan with this greatest value, if it is the greatest of int16, at which more was cut off."""
    if greatest_hu < _INT16.max:
        return None
    return (
        f"values reach {greatest_hu} HU or more, as no tissue or metal does: most likely negative ones, stored unsigned"
    )


def why_no_air(least_hu: float) -> str | None:
    """Why a scan with this least value is unlike CT; None where it isn't."""
    if least_hu <= AIR_BELOW_HU:
        return None
    return f"least HU is {least_hu:g}, over {AIR_BELOW_HU}: no air, unlike CT"
