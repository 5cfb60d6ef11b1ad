"""Whether a mask is shifted against its CT, told by where bone is."""

from __future__ import annotations

import numpy as np

REACH_MM = 30.0
# Soft tissue has up to 100 HU; from 300 HU on, it is bone for sure.
_BONE_FROM_HU, _BONE_FULL_HU = 100.0, 300.0
# By so much denser must the tissue below the moved mask be, and so far the move go, before it is worth a word.
LEAST_GAIN = 1.25
LEAST_SHIFT_MM = 6.0
_AXES = (0, 1, 2)


def find_shift(image_hu: np.ndarray, mask: np.ndarray, spacing_mm: np.ndarray) -> tuple[np.ndarray, float] | None:
    """How a mask would have to move to lie on bone.

    The bone below the mask is counted for all moves up to ``REACH_MM`` at once, by a cross-correlation.

    Args:
        image_hu: (I, J, K), at a spacing of a few millimetres.
        mask: (I, J, K) bool of the same grid.
        spacing_mm: (3,) along I, J, K.

    Returns:
        (3,) mm along I, J, K, and how many times as much bone the mask then covers; None where it lies right, or where
        there is no bone to tell by.
    """
    if not mask.any() or mask.all():
        return None
    reach = np.ceil(REACH_MM / spacing_mm).astype(int)
    where = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    box = tuple(slice(max(at[0] - n, 0), at[-1] + n + 1) for at, n in zip(where, reach, strict=True))
    bone = np.clip((image_hu[box].astype(np.float32) - _BONE_FROM_HU) / (_BONE_FULL_HU - _BONE_FROM_HU), 0, 1)
    # Padded, so that what leaves at one end does not come in at the other.
    padded = [int(size + n) for size, n in zip(bone.shape, reach, strict=True)]
    spectrum = np.fft.rfftn(bone, padded, _AXES) * np.conj(np.fft.rfftn(mask[box].astype(np.float32), padded, _AXES))
    covered = np.fft.irfftn(spectrum, padded, _AXES)
    moves = [np.arange(-n, n + 1) for n in reach]
    near = covered[np.ix_(*(steps % size for steps, size in zip(moves, padded, strict=True)))]
    now, best = float(near[tuple(reach)]), float(near.max())
    at = np.unravel_index(int(near.argmax()), near.shape)
    shift_mm = (np.array(at) - reach) * spacing_mm
    if best < LEAST_GAIN * max(now, 1e-6) or best < 0.05 * mask.sum() or np.linalg.norm(shift_mm) < LEAST_SHIFT_MM:
        return None
    return shift_mm, best / max(now, best / 100)
