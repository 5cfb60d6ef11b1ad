"""A scan as a network sees it: with right angles, also where the gantry was tilted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from utils.constants import SLAB_SLICES
from utils.files.dicom.pixels import PADDING_HU
from utils.files.scans import Scan
from utils.geometry.straightening import Straightening


@dataclass(frozen=True)
class StraightScan:
    """A scan whose slices are shifted to right angles as they are read; used as a ``Scan`` is."""

    scan: Scan
    straightening: Straightening

    @property
    def shape(self) -> tuple[int, int, int]:
        """(I, J, K) of the straightened grid."""
        return self.straightening.shape

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) of the straightened grid, to RAS mm."""
        return self.straightening.affine

    def slabs(
        self, region: tuple[slice, slice, slice] | None = None, thickness: int = SLAB_SLICES
    ) -> Iterator[tuple[int, np.ndarray]]:
        """As ``Scan.slabs``; voxels outside of the scan are air."""
        i, j, k = region or (slice(None),) * 3
        first_slice = k.indices(self.shape[2])[0]
        for first, slab in self.scan.slabs((slice(None), slice(None), k), thickness):
            yield first, self.straightening.forward(slab, first_slice + first, PADDING_HU)[i, j]


def straight_scan(scan: Scan) -> Scan | StraightScan:
    """The scan itself where its axes meet at right angles; else the same with shifted slices."""
    straightening = Straightening.of(scan.shape, scan.affine)
    return scan if straightening is None else StraightScan(scan, straightening)
