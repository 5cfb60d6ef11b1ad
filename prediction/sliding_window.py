"""Sliding-window inference: windows of a volume in, stitched probabilities out.

Logits become probabilities here, and nowhere else but inside a loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from prediction.probabilities import of_background
from utils.geometry.boxes import Box, mask_box
from utils.intensity import DEFAULT_SCALING, HuScaling

# Windows count most in their middle: a Gaussian of an eighth of the window's size (nnU-Net, Isensee et al. 2021).
_SIGMA_SHARE = 1 / 8
# Planes whose logits become probabilities at once.
_PLANES = 4

Shape = tuple[int, int, int]


def window_starts(size: int, window: int, overlap: float) -> list[int]:
    """First voxels of windows that cover 0 … size; neighbours overlap by at least ``overlap``, the last two by more."""
    step = max(1, int(window * (1 - overlap)))
    return [*range(0, size - window, step), max(size - window, 0)]


@dataclass(frozen=True)
class Windows:
    """Windows over an image, and which of them are looked at.

    Attributes:
        image_shape: (X, Y, Z) voxels.
        window_shape: (X, Y, Z) voxels.
        starts: along X, Y, Z, the windows' first voxels; the first may lie before the image, the last reach beyond it.
        overlap: least share of a window's side that its neighbour covers.
        wanted: (windows along X, along Y, along Z) bool.
    """

    image_shape: tuple[int, ...]
    window_shape: tuple[int, ...]
    starts: tuple[list[int], ...]
    overlap: float
    wanted: np.ndarray

    @classmethod
    def cover(
        cls,
        image_shape: Sequence[int],
        window_shape: Sequence[int],
        overlap: float = 0.5,
        overhang_vox: Sequence[int] = (0, 0, 0),
    ) -> Windows:
        """Windows over all of an image and, as patches did in training, so many voxels of air beyond its ends."""
        starts = []
        for size, window, overhang in zip(image_shape, window_shape, overhang_vox, strict=True):
            missing = max(window - size, 2 * overhang)
            starts.append([start - missing // 2 for start in window_starts(size + missing, window, overlap)])
        wanted = np.ones([len(along) for along in starts], bool)
        return cls(tuple(image_shape), tuple(window_shape), tuple(starts), overlap, wanted)

    def where(self, is_wanted: Callable[[Box], bool | np.bool]) -> Windows:
        """Only those of whose middle a question is true.

        Middles, which are what a window's neighbours don't reach farther than halfway into, cover the image together.

        Args:
            is_wanted: asked of each middle.
        """
        wanted = np.zeros_like(self.wanted)
        middles = self.middles
        for index in np.ndindex(*wanted.shape):
            low, high = np.transpose([middles[axis][number] for axis, number in enumerate(index)])
            wanted[index] = self.wanted[index] and is_wanted(Box(low, high))
        return replace(self, wanted=wanted)

    @property
    def middles(self) -> list[list[tuple[int, int]]]:
        """Along X, Y, Z, the first voxel of each window's middle and the one behind it, within the image.

        A middle reaches from halfway into the overlap with the neighbour before to halfway into that with the one
        behind. That of a window over nothing but air beyond the image is empty.
        """
        middles = []
        for starts, window, size in zip(self.starts, self.window_shape, self.image_shape, strict=True):
            cuts = [min(max((before + window + behind) // 2, 0), size) for before, behind in pairwise(starts)]
            middles.append(list(zip([0, *cuts], [*cuts, size], strict=True)))
        return middles

    def in_box(self) -> tuple[Windows, Box]:
        """The wanted windows over the part of the image that they see, and that part. At least one must be wanted."""
        kept = mask_box(self.wanted)
        assert kept is not None
        starts = [np.array(along[part]) for along, part in zip(self.starts, kept.slices, strict=True)]
        first, last = (np.array([along[end] for along in starts]) for end in (0, -1))
        box = Box(np.maximum(first, 0), np.minimum(last + self.window_shape, self.image_shape))
        starts_in_box = tuple((along - low).tolist() for along, low in zip(starts, box.start, strict=True))
        shape = tuple((box.stop - box.start).tolist())
        return Windows(shape, self.window_shape, starts_in_box, self.overlap, self.wanted[kept.slices]), box


class Image(Protocol):
    """A scaled image (C, X, Y, Z): a tensor, or what gives one when it is sliced."""

    @property
    def shape(self) -> Sequence[int]:
        """(C, X, Y, Z)."""

    def __getitem__(self, where: tuple[slice, ...]) -> Tensor:
        """(C, x, y, z) of it."""


def predict_probabilities(
    network: Callable[[Tensor], Tensor],
    image_CXYZ: Image,
    window_shape: Sequence[int],
    overlap: float = 0.5,
    batch_size: int = 1,
    overhang_vox: Sequence[int] = (0, 0, 0),
    mirror: bool = False,
    device: torch.device | str = "cpu",
    scaling: HuScaling = DEFAULT_SCALING,
) -> Tensor:
    """Apply a network window by window and stitch its logits, weighted by a Gaussian.

    Args:
        network: (B, C, *window_shape) float to logits (B, K, *window_shape), on ``device``.
        image_CXYZ: scaled image of any size, on the CPU; padded with air where smaller than a window.
        window_shape: (X, Y, Z) voxels.
        overlap: least share of a window's side that its neighbour covers, 0 to below 1. A network that sees no
            farther than a quarter of it gives what it would give on the whole image.
        batch_size: windows in a forward pass.
        overhang_vox: voxels of air that windows see beyond each end along X, Y, Z, as patches did in training.
        mirror: average with the answer to the image mirrored left–right.
        device: where the network is.
        scaling: by which the image was scaled.

    Returns:
        (K, X, Y, Z) float32 in [0, 1] on the CPU: the sigmoid where K = 1, the softmax over K otherwise.
    """
    windows = Windows.cover(image_CXYZ.shape[1:], window_shape, overlap, overhang_vox)
    return joined(
        predict_slabs(network, image_CXYZ, windows, batch_size, mirror, device, scaling), windows.image_shape[2]
    )


def joined(slabs: Iterable[tuple[slice, Tensor]], depth: int) -> Tensor:
    """The whole, (K, X, Y, depth), of the slabs of ``predict_slabs``."""
    whole = None
    for planes, slab_KXYZ in slabs:  # filled, as torch.cat would hold all of it twice
        if slab_KXYZ.shape[3] == depth:
            return slab_KXYZ
        if whole is None:
            whole = slab_KXYZ.new_empty(*slab_KXYZ.shape[:3], depth)
        whole[..., planes] = slab_KXYZ
    assert whole is not None
    return whole


@torch.inference_mode()
def predict_slabs(
    network: Callable[[Tensor], Tensor],
    image_CXYZ: Image,
    windows: Windows,
    batch_size: int = 1,
    mirror: bool = False,
    device: torch.device | str = "cpu",
    scaling: HuScaling = DEFAULT_SCALING,
) -> Iterator[tuple[slice, Tensor]]:
    """``predict_probabilities`` in slabs along Z, from below, so that the result never has to be in memory whole.

    Windows go up layer by layer, and what no further layer reaches is finished: memory holds the image and the logits
    of one layer alone. The network doesn't see windows that aren't wanted or have no bone in their middles; what no
    window sees is background.

    Yields:
        (planes, (K, X, Y, z) float32 in [0, 1] on the CPU).
    """
    axes = [
        _Axis(size, window, starts, middles, windows.overlap)
        for size, window, starts, middles in zip(
            windows.image_shape, windows.window_shape, windows.starts, windows.middles, strict=True
        )
    ]
    layer = _Layer(axes, device)
    for level, z in enumerate(axes[2].starts):
        planes = slice(max(z, 0), max(z + axes[2].window, 0))
        image_of_layer = image_CXYZ[:, :, :, planes].float()
        wanted = windows.wanted[..., level].copy()
        low, high = axes[2].middles[level]
        middle_of_layer = image_of_layer[..., low - planes.start : high - planes.start]
        for i, j in np.argwhere(wanted).tolist():
            wanted[i, j] = _holds_bone(
                middle_of_layer[:, slice(*axes[0].middles[i]), slice(*axes[1].middles[j])], scaling
            )
        wanted[0, 0] |= layer.is_empty  # it takes one answer to know how many classes there are
        for places, windows_BCXYZ in _batches(image_of_layer, axes, z - planes.start, batch_size, wanted, scaling):
            layer.add(places, level, _logits(network, windows_BCXYZ.to(device), mirror))
        end = axes[2].starts[level + 1] if z < axes[2].starts[-1] else z + axes[2].window
        inside = slice(max(z, 0), min(max(end, 0), axes[2].size))
        finished = layer.pop(end - z)[:, axes[0].inside, axes[1].inside]
        if inside.start < inside.stop:
            yield inside, finished[..., inside.start - z : inside.stop - z].cpu()


def _batches(
    image_CXYZ: Tensor,
    axes: Sequence[_Axis],
    z: int,
    batch_size: int,
    wanted: np.ndarray,
    scaling: HuScaling,
) -> Iterator[tuple[list[tuple[int, int]], Tensor]]:
    """Wanted windows (B, C, *window) of a layer, and their numbers along X and Y."""
    window_shape = [axis.window for axis in axes]
    places: list[tuple[int, int]] = []
    windows: list[Tensor] = []
    for i, j in np.argwhere(wanted).tolist():
        places.append((i, j))
        windows.append(window_at(image_CXYZ, (axes[0].starts[i], axes[1].starts[j], z), window_shape, scaling.air))
        if len(windows) == batch_size:
            yield places, torch.stack(windows)
            places, windows = [], []
    if windows:
        yield places, torch.stack(windows)


def _holds_bone(middle_CXYZ: Tensor, scaling: HuScaling) -> bool:
    """Whether a window's middle has a place that is as dense as bone.

    A mean over 3×3×3 voxels is asked for, as the noise of a single voxel reaches farther.
    """
    if middle_CXYZ.numel() == 0 or float(middle_CXYZ.max()) < scaling.least_of_bone:
        return False
    size = [min(3, along) for along in middle_CXYZ.shape[1:]]  # there must be at least as many voxels
    padding = [along // 2 for along in size]
    means = torch.nn.functional.avg_pool3d(middle_CXYZ, size, stride=2, padding=padding, count_include_pad=False)
    return float(means.max()) >= scaling.least_of_bone


@dataclass(frozen=True)
class _Axis:
    """Windows along one axis, in voxels of the image."""

    size: int
    window: int
    starts: list[int]
    middles: list[tuple[int, int]]
    overlap: float

    @property
    def weights(self) -> list[np.ndarray]:
        """(window,) float32 of each window."""
        offsets = (np.arange(self.window, dtype=np.float32) - (self.window - 1) / 2) / (self.window * _SIGMA_SHARE)
        gaussian = np.exp(-0.5 * offsets**2)
        # The rim of a window, where a network misses what lies beyond, is left to the neighbour, which has it inside.
        rim = int(self.window * self.overlap / 4)
        weights = []
        for start in self.starts:
            weight = gaussian.copy()
            if start > self.starts[0]:
                weight[:rim] = 0
            if start < self.starts[-1]:
                weight[self.window - rim :] = 0
            weights.append(weight)
        return weights

    @property
    def first(self) -> int:
        """First voxel of all windows."""
        return self.starts[0]

    @property
    def covered(self) -> int:
        """Voxels from the first window's beginning to the last one's end."""
        return self.starts[-1] + self.window - self.starts[0]

    @property
    def inside(self) -> slice:
        """The image among the covered voxels."""
        return slice(-self.first, -self.first + self.size)


class _Layer:
    """Sums of weighted logits over all covered voxels in X and Y, and as many planes as a window is high."""

    def __init__(self, axes: Sequence[_Axis], device: torch.device | str) -> None:
        self.axes = axes
        self.weights = [[torch.from_numpy(weight).to(device) for weight in axis.weights] for axis in axes]
        self.weight_XYZ = torch.zeros(axes[0].covered, axes[1].covered, axes[2].window, device=device)
        self.total_KXYZ: Tensor | None = None  # the first logits tell K

    @property
    def is_empty(self) -> bool:
        """Whether no logits were added yet."""
        return self.total_KXYZ is None

    def add(self, places: Sequence[tuple[int, int]], level: int, logits_BKXYZ: Tensor) -> None:
        """Add the logits of windows, whose numbers along X and Y are ``places``, and along Z ``level``."""
        x, y, _ = self.axes
        for (i, j), logits_KXYZ in zip(places, logits_BKXYZ, strict=True):
            weight = self.weights[0][i][:, None, None] * self.weights[1][j][:, None] * self.weights[2][level]
            first_x, first_y = x.starts[i] - x.first, y.starts[j] - y.first
            where = slice(first_x, first_x + x.window), slice(first_y, first_y + y.window)
            self.weight_XYZ[where] += weight
            if self.total_KXYZ is None:
                self.total_KXYZ = self.weight_XYZ.new_zeros(len(logits_KXYZ), *self.weight_XYZ.shape)
            self.total_KXYZ[(slice(None), *where)].addcmul_(logits_KXYZ, weight)

    def pop(self, planes: int) -> Tensor:
        """Probabilities (K, X, Y, planes) of the lowest planes, which leave the layer; it is empty without any."""
        assert self.total_KXYZ is not None
        total, weight = self.total_KXYZ[..., :planes], self.weight_XYZ[..., :planes]
        unseen = weight == 0
        total.div_(weight.masked_fill(unseen, 1))
        for part in total.split(_PLANES, dim=-1):  # in place, as many classes take much memory
            part.copy_(_probabilities(part))
        for probability, background in zip(total, of_background(len(total)), strict=True):
            probability.masked_fill_(unseen, background)
        if planes == self.weight_XYZ.shape[-1]:
            self.total_KXYZ = None
            return total
        probabilities = total.clone()
        self.total_KXYZ = torch.cat([self.total_KXYZ[..., planes:], torch.zeros_like(total)], dim=-1)
        self.weight_XYZ = torch.cat([self.weight_XYZ[..., planes:], torch.zeros_like(weight)], dim=-1)
        return probabilities


def window_at(image_CXYZ: Tensor, start: Shape, window_shape: Sequence[int], air: float) -> Tensor:
    """(C, *window_shape) from a start that may lie outside of the image; air where there is none."""
    before = [min(max(-s, 0), w) for s, w in zip(start, window_shape, strict=True)]
    behind = [min(max(s + w - n, 0), w) for s, w, n in zip(start, window_shape, image_CXYZ.shape[1:], strict=True)]
    where = [slice(max(s, 0), max(s + w, 0)) for s, w in zip(start, window_shape, strict=True)]
    window = image_CXYZ[(slice(None), *where)]
    padding = [width for pair in reversed(list(zip(before, behind, strict=True))) for width in pair]
    return torch.nn.functional.pad(window, padding, value=air) if any(padding) else window


@torch.inference_mode()
def predict_window(
    logits_in_slabs: Callable[[Tensor], Iterable[Tensor]],
    window_CXYZ: Tensor,
    mirror: bool = False,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Probabilities (K, X, Y, Z) of what a network sees at once, on the CPU; see ``predict_probabilities``.

    Of many classes, nothing but the result is in memory: logits become probabilities slab by slab.

    Args:
        logits_in_slabs: of a ``Network`` on ``device``.
        window_CXYZ: scaled.
        mirror, device: see ``predict_probabilities``.
        dtype: of the result.
    """
    window_BCXYZ = window_CXYZ[None].float().to(device)
    slabs = logits_in_slabs(window_BCXYZ)
    if mirror:
        mirrored = logits_in_slabs(window_BCXYZ.flip(2))
        slabs = ((one.float() + other.float().flip(2)) / 2 for one, other in zip(slabs, mirrored, strict=True))
    probabilities_KXYZ, first = None, 0
    for logits_BKXYZ in slabs:
        slab_KXYZ = _probabilities(logits_BKXYZ[0].float())
        if probabilities_KXYZ is None:
            probabilities_KXYZ = torch.empty(len(slab_KXYZ), *window_CXYZ.shape[1:], dtype=dtype)
        end = first + slab_KXYZ.shape[3]
        probabilities_KXYZ[..., first:end] = slab_KXYZ
        first = end
    assert probabilities_KXYZ is not None
    return probabilities_KXYZ


def _probabilities(logits_KXYZ: Tensor) -> Tensor:
    return torch.sigmoid(logits_KXYZ) if len(logits_KXYZ) == 1 else torch.softmax(logits_KXYZ, dim=0)


def _logits(network: Callable[[Tensor], Tensor], windows_BCXYZ: Tensor, mirror: bool) -> Tensor:
    logits = network(windows_BCXYZ).float()
    if mirror:
        logits = (logits + network(windows_BCXYZ.flip(2)).float().flip(2)) / 2
    return logits
