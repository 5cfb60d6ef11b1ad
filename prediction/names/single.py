"""One vertebra at a time: a segmenter that is shown a vertebra's centre, and finds that vertebra alone.

Lessmann et al. 2019 (10.1016/j.media.2019.02.005), Payer et al. 2020 (10.5220/0008975201240133).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from prediction.postprocessing import without_dropped_components
from prediction.sliding_window import Image, window_at
from utils.constants import SHOWN_SIGMA_MM
from utils.geometry.body_centres import body_centre
from utils.geometry.boxes import Box
from utils.geometry.gaussians import gaussian

if TYPE_CHECKING:
    import h5py

# From the centre of a body to the middle of its window: arch and processes lie behind and below it.
_TO_MIDDLE_MM = np.array([0.0, -16.0, -8.0])
# Room along X, Y and Z for vertebrae that the localiser misses: a bent spine leads aside, and the first or the last one
# that it sees may be far from the ends of the scan.
_ROOM_MM = np.array([30.0, 60.0, 1000.0])
# A body that was found farther than this from where it was shown is shown again, at its own centre.
_NEAR_MM = 3.0
# Neighbours lie nearer than this. What has less than this share of the voxels that they have in median is a fragment.
_NEIGHBOUR_MM, _LEAST_OF_NEIGHBOUR = 60.0, 0.4
# A vertebra of which a larger share is another's that was found before is that one once more.
_MOST_SHARED = 0.5
# Numbers have eight bits. No spine has so many vertebrae.
_MOST_VERTEBRAE = 255


def window_box(centre_vox: np.ndarray, window_shape: Sequence[int], spacing_mm: float) -> Box:
    """The voxels that the window of a vertebra covers; it may reach beyond the image.

    Args:
        centre_vox: (3,) of the body.
        window_shape: (X, Y, Z) voxels.
        spacing_mm: of the isotropic grid.
    """
    start = np.rint(centre_vox + _TO_MIDDLE_MM / spacing_mm).astype(int) - np.array(window_shape) // 2
    return Box(start, start + window_shape)


def box_of_windows(
    centres_vox: Iterable[np.ndarray],
    margin_mm: float,
    window_shape: Sequence[int],
    spacing_mm: float,
    image_shape: Sequence[int],
) -> Box:
    """The part of an image that the windows of vertebrae cover; all of it where there is none.

    Args:
        centres_vox: (3,) each.
        margin_mm: by which a vertebra may lie beside its centre.
        window_shape: (X, Y, Z) voxels.
        spacing_mm: of the isotropic grid.
        image_shape: (X, Y, Z) voxels.

    Returns:
        There is room for further vertebrae.
    """
    boxes = [window_box(centre_vox, window_shape, spacing_mm) for centre_vox in centres_vox]
    if not boxes:
        return Box(np.zeros(3, int), np.array(image_shape))
    margin_vox = np.rint((margin_mm + _ROOM_MM) / spacing_mm).astype(int)
    low = np.min([box.start for box in boxes], axis=0) - margin_vox
    high = np.max([box.stop for box in boxes], axis=0) + margin_vox
    start = np.clip(low, 0, np.array(image_shape) - 1)  # a voxel at least
    return Box(start, np.clip(high, start + 1, image_shape))


@dataclass
class SingleVertebrae:
    """The vertebrae of an image, found one by one; where windows overlap, the most probable one has a voxel.

    Attributes:
        network: (2, *window_shape), the scaled image and a Gaussian at a vertebra's centre, to the vertebra's
            probability (1, *window_shape) on the CPU.
        image: scaled image (1, X, Y, Z), on the CPU.
        air: scaled.
        window_shape: (X, Y, Z) voxels.
        spacing_mm: of the isotropic grid.
        probability: (X, Y, Z) float32, 0 at first; gets that of the vertebra that a voxel most probably belongs to. On
            disk, or an array, as are the numbers.
        numbers: (X, Y, Z) uint8, 0 at first; gets this vertebra's number, from 1 on, also where the probability is low.
        boxes: of each vertebra, by its number less 1, the part of its window that lies in the image.
        sizes: number -> how large each is; without those that turned out to be fragments.
    """

    network: Callable[[Tensor], Tensor]
    image: Image
    air: float
    window_shape: Sequence[int]
    spacing_mm: float
    probability: np.ndarray | h5py.Dataset
    numbers: np.ndarray | h5py.Dataset
    boxes: list[Box] = field(default_factory=list)
    sizes: dict[int, _Size] = field(default_factory=dict)

    def find(self, centre_vox: np.ndarray) -> Body | None:
        """Find the vertebra whose body is about there. Of what the network finds, the largest piece is taken.

        Returns:
            Its body; that of an earlier one, where most of it is the same; None where there is no vertebra, or only a
            fragment beside vertebrae, such as a part of the sacrum or of a vessel with contrast agent.
        """
        found = self._predict(centre_vox)
        if found is not None and np.linalg.norm(found.body_vox - centre_vox) * self.spacing_mm > _NEAR_MM:
            found = self._predict(found.body_vox) or found
        if found is None:
            return None
        where = found.box.slices
        number = _same(found.probability > 0.5, np.where(self.probability[where] > 0.5, self.numbers[where], 0))
        if number:
            return Body(found.body_vox, number)
        size = found.size(self.image.shape[1:])
        if self._is_fragment(size, self.sizes.values()) or len(self.boxes) == _MOST_VERTEBRAE:
            return None
        self.boxes.append(found.box)
        self.sizes[len(self.boxes)] = size
        self._take_voxels(found)
        fragments = self._drop_fragments()
        if fragments:
            self._take_voxels(found)
        return Body(found.body_vox, len(self.boxes), fragments)

    def _take_voxels(self, newest: _Found) -> None:
        """Give the newest vertebra the voxels that most probably are its own; those that had them lose them."""
        where, number = newest.box.slices, len(self.boxes)
        before, numbers = self.probability[where], self.numbers[where]
        is_own = newest.probability > before
        lost_vox = np.bincount(numbers[is_own & (before > 0.5)], minlength=number)
        for earlier, size in self.sizes.items():
            if earlier != number:
                self.sizes[earlier] = size._replace(voxels=size.voxels - int(lost_vox[earlier]))
        self.numbers[where] = np.where(is_own, np.uint8(number), numbers)
        self.probability[where] = np.maximum(newest.probability, before)  # not a number stays so

    def _is_fragment(self, one: _Size, others: Iterable[_Size]) -> bool:
        """Whether it is much smaller than most of what is near, and not cut by the image's edge."""
        near = [
            other.voxels
            for other in others
            if np.linalg.norm(one.centre_vox - other.centre_vox) * self.spacing_mm < _NEIGHBOUR_MM
        ]
        return bool(near) and not one.is_cut and one.voxels < _LEAST_OF_NEIGHBOUR * float(np.median(near))

    def _drop_fragments(self) -> tuple[int, ...]:
        """Numbers of what the newest vertebra shows to be fragments: they have no voxels any more."""
        fragments = []
        for number in [*self.sizes][:-1]:
            others = [size for other, size in self.sizes.items() if other != number]
            if self._is_fragment(self.sizes[number], others):
                fragments.append(number)
        for number in fragments:
            where = self.boxes[number - 1].slices
            numbers = self.numbers[where]
            self.probability[where] = np.where(numbers == number, np.float32(0), self.probability[where])
            self.numbers[where] = np.where(numbers == number, np.uint8(0), numbers)
            del self.sizes[number]
        return tuple(fragments)

    def _predict(self, centre_vox: np.ndarray) -> _Found | None:
        """What the network finds where it is shown a vertebra; None where that is nothing, or outside of the image."""
        window = window_box(centre_vox, self.window_shape, self.spacing_mm)
        box = Box(np.maximum(window.start, 0), np.minimum(window.stop, self.image.shape[1:]))
        if (box.stop <= box.start).any():
            return None
        start = tuple((window.start - box.start).tolist())
        in_window = window_at(self.image[(slice(None), *box.slices)].float(), start, self.window_shape, self.air)
        shown = gaussian(self.window_shape, centre_vox - window.start, [SHOWN_SIGMA_MM / self.spacing_mm] * 3)
        probability = self.network(torch.cat([in_window, torch.from_numpy(shown)[None]]))[0].numpy()
        probability = probability[Box(box.start - window.start, box.stop - window.start).slices]
        spacing_mm = [self.spacing_mm] * 3
        own = without_dropped_components(torch.from_numpy(probability)[None], spacing_mm, "largest")[0].numpy()
        if (own <= 0.5).all():
            return None
        is_number = np.isfinite(own).all()  # else whoever reads the volume is to see it
        body_vox = body_centre(own > 0.5, spacing_mm) + box.start if is_number else centre_vox
        return _Found(own, box, body_vox)


class Body(NamedTuple):
    """The centre (3,) in voxels of a vertebra's body, and the vertebra's number; numbers that it shows to be none."""

    centre_vox: np.ndarray
    number: int
    fragments: tuple[int, ...] = ()


class _Size(NamedTuple):
    """The centre (3,) in voxels of a vertebra's body, its voxels, and whether the image's edge cuts it."""

    centre_vox: np.ndarray
    voxels: int
    is_cut: bool


class _Found(NamedTuple):
    """A vertebra: its probability (x, y, z) in a box of the image, and the centre (3,) of its body in voxels."""

    probability: np.ndarray
    box: Box
    body_vox: np.ndarray

    def size(self, image_shape: Sequence[int]) -> _Size:
        """How large it is in an image (X, Y, Z)."""
        own = self.probability > 0.5
        ends = [*(self.box.start == 0), *(self.box.stop == image_shape)]
        faces = [np.moveaxis(own, axis, 0)[end] for end in (0, -1) for axis in range(3)]
        is_cut = any(is_end and face.any() for is_end, face in zip(ends, faces, strict=True))
        return _Size(self.body_vox, int(own.sum()), is_cut)


def _same(own: np.ndarray, numbers: np.ndarray) -> int:
    """The number of the vertebra that was found before and holds most of another (X, Y, Z) bool; 0 if none does."""
    shared = np.bincount(numbers[own], minlength=2)[1:]
    return int(shared.argmax()) + 1 if shared.max() > _MOST_SHARED * own.sum() else 0
