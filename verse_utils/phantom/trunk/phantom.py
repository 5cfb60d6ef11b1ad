"""Make a phantom of a trunk: draw a body, scan a part of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from verse_utils.phantom.case import Phantom, label_whole
from verse_utils.phantom.trunk.body import make_trunk
from verse_utils.phantom.trunk.label_maps import make_real_shapes
from verse_utils.phantom.trunk.scanner import REGIONS, WHOLE, draw_protocol, scan

_TINY_MM = 5.0


def make_trunk_phantom(
    seed: int | Sequence[int],
    size: str = "full",
    masks: Sequence[Path] = (),
    voxel_mm: float | None = None,
    whole: bool = False,
) -> Phantom:
    """Draw a body with everything that a CT of a trunk shows, and scan a part of it.

    Args:
        seed: everything follows from it.
        size: "full", slices of 0.7 to 5 mm, or "tiny", voxels of 5 mm for tests.
        masks: files of label maps; the vertebrae of one of them are given the body, and scanned.
        voxel_mm: edge of the voxels of "full", if it isn't to be drawn; coarse ones are quickly made.
        whole: scan from the skull to the pelvis, not a part.

    Raises:
        UserError: a mask that can't be used.
    """
    rng = np.random.default_rng(seed)
    levels = None
    if masks:
        anatomy, levels = make_real_shapes(masks[int(rng.integers(len(masks)))], rng)
    else:
        anatomy = make_trunk(rng)
    spacing_mm = _TINY_MM if size == "tiny" else voxel_mm
    protocol = draw_protocol(anatomy, rng, spacing_mm, levels, WHOLE if whole else REGIONS)
    image_hu, label = scan(anatomy, protocol, int(rng.integers(2**31)))
    return label_whole(anatomy, image_hu, label, protocol.affine)
