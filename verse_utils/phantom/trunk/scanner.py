"""The scanner: fields of view, slices, kernels, noise by dose, and streaks of metal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np

from verse_utils.phantom.anatomy import Anatomy, Part, table
from verse_utils.phantom.render import Box, Texture, paint, trunk_image, voxel_box

_THIN_MM = 1.6  # thicker slices are the mean of thin ones
_SLAB = 2_000_000  # voxels that are painted at a time
_METAL_HU = 2200  # denser voxels throw streaks
_NOISE_SLICES = 48  # for which noise is drawn anew
_TILE = 72  # edge of the block of texture that is laid side by side
# (lowest, highest) level at the ends of the field of view, and how often it is scanned. Levels between two vertebrae
# cut one of them; 25 to 27 lie in the pelvis, below 1 is the skull.
Regions = Mapping[tuple[tuple[float, float], tuple[float, float]], float]
REGIONS: Regions = {
    ((18.0, 22.0), (5.5, 8.5)): 0.3,  # chest
    ((24.0, 28.5), (14.0, 17.5)): 0.25,  # abdomen and pelvis
    ((25.0, 28.5), (4.0, 8.0)): 0.2,  # chest to pelvis
    ((20.0, 23.0), (0.0, 4.0)): 0.1,  # neck and chest
    ((21.5, 24.0), (13.0, 17.0)): 0.15,  # upper abdomen
}
WHOLE: Regions = {((25.0, 28.5), (-3.0, 0.5)): 1.0}


@dataclass(frozen=True)
class Protocol:
    """How a body is scanned.

    Attributes:
        affine: (4, 4) voxels to RAS millimetres; the third axis is that of the slices.
        shape: (I, J, K) voxels.
        soft_mm: how far an edge is spread by the kernel.
        sharpen: share of the edges' height that a sharp kernel overshoots by.
        noise_hu: standard deviation of the noise in the middle of the trunk.
        streaks_hu: height of the streaks that start at metal.
        is_round: whether what lies outside of the gantry's circle is empty.
    """

    affine: np.ndarray
    shape: tuple[int, int, int]
    soft_mm: float
    sharpen: float
    noise_hu: float
    streaks_hu: float
    is_round: bool


def draw_protocol(
    anatomy: Anatomy,
    rng: np.random.Generator,
    spacing_mm: float | None = None,
    levels: tuple[int, int] | None = None,
    regions: Regions = REGIONS,
) -> Protocol:
    """Draw a field of view anywhere between neck and pelvis, slices of 0.7 to 5 mm, a kernel and a dose.

    Args:
        anatomy: the body.
        rng: draws the rest.
        spacing_mm: of all axes, if it isn't to be drawn; coarse voxels are for tests.
        levels: VerSe's numbers of the highest and the lowest vertebra that are to be seen; the ends lie about there.
        regions: that the field of view is drawn from where there are no ``levels``.
    """
    if levels:
        high, low = rng.uniform(levels[0] - 2.5, levels[0] + 1), rng.uniform(levels[1] - 0.5, levels[1] + 2.5)
    else:
        region = list(regions)[rng.choice(len(regions), p=list(regions.values()))]
        low, high = (rng.uniform(*ends) for ends in region)
    is_sharp = rng.random() < 0.4
    slice_mm = float(rng.choice([rng.uniform(0.7, 1.25), rng.uniform(1.5, 2.5), 3.0, 5.0], p=[0.35, 0.25, 0.2, 0.2]))
    pixel_mm = rng.uniform(0.7, 1.0)
    pixel_mm, slice_mm = (spacing_mm, spacing_mm) if spacing_mm else (max(pixel_mm, 0.8), slice_mm)
    affine, shape = _grid(anatomy, (low, high), rng, pixel_mm, slice_mm)
    dose_hu = rng.uniform(7, 22) * (2.2 if is_sharp else 1.0) / np.sqrt(max(slice_mm, 0.7) / 2)
    return Protocol(
        affine,
        shape,
        soft_mm=max(rng.uniform(0.7, 1.1) if is_sharp else rng.uniform(1.4, 2.2), 0.9 * pixel_mm),
        sharpen=rng.uniform(0.4, 1.1) if is_sharp else 0.0,
        noise_hu=min(dose_hu, 70.0),
        streaks_hu=rng.uniform(60, 250),
        is_round=bool(rng.random() < 0.3),
    )


def _grid(
    anatomy: Anatomy, ends: tuple[float, float], rng: np.random.Generator, pixel_mm: float, slice_mm: float
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """A field of view from the lower to the upper end, which are levels: its affine and its shape."""
    numbers = sorted(number for number in anatomy.body_pose if number <= 24)
    origins = np.array([anatomy.body_pose[number].origin for number in numbers])
    # Below L5, a level is about 45 mm; above C1, 25 mm.
    bottom, top = (
        np.interp(level, numbers, origins[:, 2]) - 45 * max(level - 24, 0) + 25 * max(1 - level, 0) for level in ends
    )
    shown = (origins[:, 2] > bottom) & (origins[:, 2] < top)
    spine = origins[shown].mean(axis=0)
    if rng.random() < 0.3:  # around the spine alone
        across = rng.uniform(160, 240)
        middle = spine[:2] + rng.normal(0, 8, 2) + [0, 0.12 * across]
    else:
        across = rng.uniform(330, 440)
        middle = spine[:2] + rng.normal(0, 10, 2) + [0, 35]
    extent = np.array([across, across, top - bottom])
    codes = str(rng.choice(["LPS", "LAS", "RAS"]))
    axes = np.diag([1.0 if code in "RAS" else -1.0 for code in codes])
    matrix = axes * [pixel_mm, pixel_mm, slice_mm]
    i, j, k = (max(round(n), 4) for n in extent / [pixel_mm, pixel_mm, slice_mm])
    centre = np.array([*middle, (bottom + top) / 2])
    return nib.affines.from_matvec(matrix, centre - matrix @ ((np.array([i, j, k]) - 1) / 2)), (i, j, k)


def scan(anatomy: Anatomy, protocol: Protocol, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scan a body.

    Args:
        anatomy: what is scanned.
        protocol: how.
        seed: of texture and noise.

    Returns:
        (I, J, K) int16 HU and (I, J, K) uint8 labels of every vertebra in view, cut ones too.
    """
    rng = np.random.default_rng(seed)
    slice_mm = float(nib.affines.voxel_sizes(protocol.affine)[2])
    thin = int(np.ceil(slice_mm / _THIN_MM - 1e-6))
    i, j, k = protocol.shape
    affine = protocol.affine @ nib.affines.from_matvec(np.diag([1, 1, 1 / thin]), [0, 0, (1 / thin - 1) / 2])
    image, label = _paint_all(anatomy, affine, (i, j, k * thin), protocol.soft_mm, rng)
    image = image.reshape(i, j, k, thin).mean(axis=3) if thin > 1 else image
    label = np.ascontiguousarray(label.reshape(i, j, k, thin)[..., thin // 2])
    if protocol.sharpen:
        image += np.float32(protocol.sharpen) * (image - _blurred(image, 2))
    _add_streaks(image, protocol.streaks_hu, rng)
    _add_noise(image, protocol, rng)
    if protocol.is_round:
        x, y = (np.linspace(-1, 1, n)[:, None] for n in (i, j))
        image[np.hypot(x, y.T) > 1] = -1024
    return np.clip(np.rint(image), -1024, 3071).astype(np.int16), label


def _paint_all(
    anatomy: Anatomy, affine: np.ndarray, shape: tuple[int, int, int], soft_mm: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    image = trunk_image(anatomy.trunk, affine, shape, soft_mm)
    coarse = _tile(rng, 8)
    _add_fat_streaks(image, coarse)
    texture = _laid(np.float32(0.85) * _tile(rng, 2) + np.float32(0.5) * coarse)
    label = np.zeros(shape, np.uint8)
    for part in pieces((*table(anatomy), *anatomy.parts)):
        box = voxel_box(part.solids, affine, shape)
        if box is None:
            continue
        step = max(_SLAB // ((box[1].stop - box[1].start) * (box[2].stop - box[2].start)), 1)
        for first in range(box[0].start, box[0].stop, step):  # in slabs, which keeps the memory small
            slab = (slice(first, min(first + step, box[0].stop)), box[1], box[2])
            paint(part, slab, affine, soft_mm, image, label, texture)
    return image, label


def pieces(parts: Iterable[Part]) -> Iterator[Part]:
    """Parts whose solids may be painted one after the other, so divided: their boxes are smaller."""
    for part in parts:
        if part.shell_hu is None and not part.hollow and not part.rim_mm and not part.label:
            yield from (replace(part, solids=(solid,)) for solid in part.solids)
        else:
            yield part


def _laid(tile: np.ndarray) -> Texture:
    """A block of grain laid side by side: a voxel's grain is the same, whatever box it is asked for with."""

    def texture(box: Box, at: tuple[np.ndarray, ...], sd_hu: float) -> np.ndarray:
        index = tuple((axis.start + inside) % _TILE for axis, inside in zip(box, at, strict=True))
        grain: np.ndarray = tile[index] * np.float32(sd_hu)
        return grain

    return texture


def _tile(rng: np.random.Generator, smoothings: int) -> np.ndarray:
    """A block of grain of standard deviation 1, float32."""
    tile: np.ndarray = _blurred(rng.standard_normal([_TILE] * 3, dtype=np.float32), smoothings)
    tile /= tile.std()
    return tile


def _add_fat_streaks(image: np.ndarray, tile: np.ndarray) -> None:
    """Fat between muscles, and what else makes them uneven."""
    streaks = 6 * tile - 110 * np.clip(tile - 1.6, 0, 1)
    for first in range(0, image.shape[0], _TILE):
        for second in range(0, image.shape[1], _TILE):
            for third in range(0, image.shape[2], _TILE):
                block = image[first : first + _TILE, second : second + _TILE, third : third + _TILE]
                i, j, k = block.shape
                block += np.where(block > 0, streaks[:i, :j, :k], 0)


def _blurred(image: np.ndarray, times: int) -> np.ndarray:
    """Smoothed by (1, 2, 1) / 4 along each axis, so often; the ends are joined."""
    for _ in range(times):
        for axis in range(image.ndim):
            image = 0.5 * image + 0.25 * (np.roll(image, 1, axis) + np.roll(image, -1, axis))
    return image


def _add_noise(image: np.ndarray, protocol: Protocol, rng: np.random.Generator) -> None:
    """Noise that grows with what the rays go through. Sharp kernels have the fine part of it alone."""
    i, j, k = image.shape
    noise: np.ndarray = rng.standard_normal((i, j, min(k, _NOISE_SLICES)), dtype=np.float32)
    noise = noise - 0.5 * _blurred(noise, 1) if protocol.sharpen else _blurred(noise, 1)
    noise *= np.float32(protocol.noise_hu) / noise.std()
    pixel_mm = nib.affines.voxel_sizes(protocol.affine)[0]
    width_mm = (image[:, ::4] > -300).sum(axis=0).max(axis=0) * pixel_mm  # of each slice
    factor = np.clip(np.exp(0.004 * (width_mm - 320)), 0.5, 1.8).astype(np.float32)
    for first in range(0, k, _NOISE_SLICES):  # each block of slices has the same noise, shifted: drawing it takes long
        block = image[:, :, first : first + _NOISE_SLICES]
        shifted = np.roll(noise, rng.integers(0, (i, j)), axis=(0, 1))[:, :, : block.shape[2]]
        block += shifted * factor[first : first + _NOISE_SLICES]


def _add_streaks(image: np.ndarray, height_hu: float, rng: np.random.Generator) -> None:
    """Dark and bright rays from metal, in each slice that holds some."""
    metal = np.argwhere(image > _METAL_HU)
    for k in np.unique(metal[:, 2]):
        places = metal[metal[:, 2] == k, :2]
        x, y = (np.arange(n) - c for n, c in zip(image.shape[:2], places.mean(axis=0), strict=True))
        angle, radius = np.arctan2(y, x[:, None]), np.hypot(x[:, None], y)
        rays = np.cos(2 * angle + 0.3) + 0.6 * np.cos(11 * angle + rng.uniform(0, 6)) + 0.4 * np.cos(23 * angle)
        height = height_hu * min(len(places) / 40, 1.0)
        image[:, :, k] += (height * rays * np.exp(-radius / 45) * (radius > 3)).astype(np.float32)
