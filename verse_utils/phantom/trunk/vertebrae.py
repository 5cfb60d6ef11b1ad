"""The shape of each vertebra, C1 to L6, as solids in its own frame: origin in the body's centre; right, front, up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from verse_utils.labels import T13
from verse_utils.phantom.shapes import Capsule, Drum, Ellipsoid, Point, Pose, Solid, Vector, rotation
from verse_utils.phantom.trunk.sizes import VertebraSize


@dataclass(frozen=True)
class VertebralBody:
    """A drum with rounded-square end plates that are dished, the lower one wider, and a waist.

    Attributes:
        pose: frame at its centre.
        size: width, depth and height in mm.
        waist: share by which it is narrower at half its height.
        flare: share by which the lower end plate is wider than the middle, and the upper narrower.
        dish_mm: how deep the end plates are.
        point: share by which it is narrower in front than in its middle, and wider behind.
    """

    pose: Pose
    size: Vector
    waist: float = 0.07
    flare: float = 0.03
    dish_mm: float = 1.5
    point: float = 0.0

    def bounds(self) -> tuple[Vector, Vector]:
        """Lowest and highest corner."""
        widest = [1 + self.flare + self.point, 1 + self.flare, 1]
        reach = (np.abs(self.pose.axes) * (self.size / 2 * widest)).sum(axis=1)
        return self.pose.origin - reach, self.pose.origin + reach

    def distance(self, points: Sequence[np.ndarray]) -> np.ndarray:
        """Signed distance in mm."""
        x, y, z = self.pose.to_local(points)
        half_x, half_y, half_z = (np.float32(s / 2) for s in self.size)
        height = np.clip(z / half_z, -1, 1)
        x = x / (1 - np.float32(self.point) * np.clip(y / half_y, -1, 1))
        radius = (np.abs(x / half_x) ** 2.5 + np.abs(y / half_y) ** 2.5) ** np.float32(0.4)
        radius = radius + np.float32(self.flare) * height + np.float32(self.waist) * (1 - np.square(height))
        dish = np.float32(self.dish_mm) * np.clip(1 - np.square(radius), 0, 1)
        distance: np.ndarray = np.maximum((radius - 1) * min(half_x, half_y), np.abs(z) - half_z + dish)
        return distance


class _Builder:
    """Makes solids of a vertebra's frame; ``both`` makes each of them on the left and on the right."""

    def __init__(self, pose: Pose) -> None:
        self.pose = pose
        self.solids: list[Solid] = []

    def body(self, size: VertebraSize, point: float) -> None:
        self.solids.append(VertebralBody(self.pose, np.array([size.width, size.depth, size.height]), point=point))

    def bar(self, start: Point, end: Point, across: float, tall: float, axis: int = 2, taper: float = 1) -> None:
        """A bar that is ``across`` thick and ``tall`` along an axis of the frame; ``taper`` times that at its end."""
        ends = self.pose.to_world(start), self.pose.to_world(end)
        radius = across / 2
        self.solids.append(Capsule(*ends, radius, taper * radius, self.pose.axes[:, axis], across / tall))

    def knob(self, centre: Point, radii: Point, lean_deg: float = 0.0) -> None:
        """An ellipsoid whose top leans backward."""
        axes = self.pose.axes @ rotation(0, np.deg2rad(lean_deg))
        self.solids.append(Ellipsoid(Pose(self.pose.to_world(centre), axes), np.array(radii, float)))

    def pillar(self, centre: Point, sizes: Point, slope_deg: float) -> None:
        """A short column whose ends slope down to the back."""
        axes = self.pose.axes @ rotation(0, np.deg2rad(slope_deg))
        self.solids.append(Drum(Pose(self.pose.to_world(centre), axes), np.array(sizes, float)))


def vertebra_solids(number: int, pose: Pose, size: VertebraSize) -> list[Solid]:
    """The bone of a vertebra, taken as one; its canal is to be cut out (``canal``)."""
    build = _Builder(pose)
    if number == 1:
        _atlas(build, size)
        return build.solids
    build.body(size, point=float(np.interp(number, (7, 10, 16, 20), (0, 0.2, 0.15, 0.05))))
    _arch(build, size)
    if number == 2:
        _axis(build, size)
    if number <= 7:
        _cervical(build, size)
    elif number <= 19 or number == T13:
        _thoracic(build, size, has_facets_as_lumbar=number in (19, T13))
    else:
        _lumbar(build, size)
    return build.solids


def canal(pose: Pose, size: VertebraSize) -> Solid:
    """The vertebral canal, an elliptic tube that goes on above and below."""
    y = -(size.depth + size.canal_depth) / 2
    ends = pose.to_world([0, y, -2.5 * size.height]), pose.to_world([0, y, 2.5 * size.height])
    radius = size.canal_depth / 2
    return Capsule(*ends, radius, radius, pose.axes[:, 0], size.canal_depth / size.canal_width)


def transverse_tip(number: int, size: VertebraSize) -> Vector:
    """The tip of the right transverse process in the vertebra's frame; a rib's tubercle lies before it."""
    rear = -size.depth / 2
    thoracic = 8 <= number <= 19 or number == T13
    back = 1.15 if thoracic else 0.55
    return np.array(
        [size.transverse / 2 - 3, rear - back * size.canal_depth, (0.3 if thoracic else 0.08) * size.height]
    )


def _arch(build: _Builder, size: VertebraSize) -> None:
    """Pedicles, laminae and the spinous process, which all but C1 have."""
    rear, half_canal = -size.depth / 2, size.canal_width / 2
    behind = rear - size.canal_depth - 0.5 * size.lamina_thickness
    slope = np.deg2rad(size.spinous_slope_deg)
    root = np.array([0, behind, -0.12 * size.height])
    tip = root + size.spinous * np.array([0, -np.cos(slope), -np.sin(slope)])
    thick = 0.9 * size.lamina_thickness
    build.bar(root, tip, thick, 0.9 * size.lamina_height, taper=size.spinous_height / (0.9 * size.lamina_height))
    build.bar(0.7 * root + 0.3 * tip, tip, thick, size.spinous_height)
    for side in (-1, 1):
        out = half_canal + 0.5 * size.pedicle_width
        upper = 0.5 * size.height - 0.55 * size.pedicle_height
        inner = [side * min(out, 0.4 * size.width), 0.6 * rear, upper]
        corner = [side * out, rear - 0.55 * size.canal_depth, upper]
        build.bar(inner, corner, size.pedicle_width, size.pedicle_height)
        side_end = [side * (half_canal + 0.3 * size.lamina_thickness), rear - 0.7 * size.canal_depth, 0.0]
        build.bar(side_end, root, size.lamina_thickness, size.lamina_height)


def _lumbar(build: _Builder, size: VertebraSize) -> None:
    """Facets that face sideways: the upper ones embrace the lower ones of the vertebra above."""
    rear, half_canal = -size.depth / 2, size.canal_width / 2
    upper_x, lower_x = size.facet_x, size.facet_x - 10
    for side in (-1, 1):
        y = rear - 0.75 * size.canal_depth
        top = 0.5 * size.height + 0.45 * size.disc + 3
        bottom = -0.5 * size.height - 0.55 * size.disc - 4
        build.bar([side * upper_x, y + 3, 0.2 * size.height], [side * upper_x, y, top], 10, 17, axis=1, taper=0.8)
        build.bar([side * half_canal, y - 3, 0], [side * lower_x, y - 4, bottom], 9.5, 15, axis=1, taper=0.8)
        tip = transverse_tip(20, size) * [side, 1, 1]
        root = [side * (half_canal + 0.6 * size.pedicle_width), rear - 0.35 * size.canal_depth, 0.1 * size.height]
        build.bar(root, tip, 0.5 * size.pedicle_width + 2, 14, taper=0.7)
        build.knob([side * (upper_x + 3), y - 1, 0.3 * size.height], [5, 5, 6])  # mammillary process


def _thoracic(build: _Builder, size: VertebraSize, has_facets_as_lumbar: bool) -> None:
    """Facets that face back and front, and strong transverse processes that carry the ribs."""
    rear = -size.depth / 2
    for side in (-1, 1):
        y = rear - 0.75 * size.canal_depth
        x = side * size.facet_x
        top = 0.5 * size.height + 0.5 * size.disc + 3.5
        bottom = -0.5 * size.height - 0.5 * size.disc - 4
        build.bar([x, y, 0.2 * size.height], [x, y + 0.5, top], 5.5, 13, axis=0)
        lower_x = 0.7 * x if has_facets_as_lumbar else x
        build.bar([lower_x, y - 4, 0], [lower_x, y - 6.5, bottom], 6, 13, axis=0)
        tip = transverse_tip(8, size) * [side, 1, 1]
        build.bar([side * (0.5 * size.canal_width + 2), y, 0.15 * size.height], tip, 10, 12, taper=0.95)


def _cervical(build: _Builder, size: VertebraSize) -> None:
    """Articular pillars beside the canal, whose ends slope, and transverse processes with a hole for the artery."""
    rear, half_canal = -size.depth / 2, size.canal_width / 2
    tip_x = size.transverse / 2 - 2
    for side in (-1, 1):
        x = side * size.facet_x
        build.pillar([x, rear - 0.25 * size.canal_depth, 0], [13.5, 13, size.height + 0.6 * size.disc], 30)
        build.bar([side * 0.42 * size.width, 1, -1], [side * tip_x, 1, -2], 4, 5)
        build.bar([x, rear + 1, -1], [side * tip_x, -2, -2], 4.5, 6)
        build.bar(
            [side * 0.45 * size.width, 0, 0.4 * size.height], [side * 0.5 * size.width, -2, 0.5 * size.height], 3, 8, 1
        )
        build.bar([side * half_canal, rear - 0.6 * size.canal_depth, 0], [x, rear - 0.4 * size.canal_depth, 0], 5, 8)


def _axis(build: _Builder, size: VertebraSize) -> None:
    """What C2 alone has: the dens, and broad shoulders on which C1 turns."""
    top = 0.5 * size.height
    build.bar([0, 0.5, 0], [0, 0, top + 12], 10, 11, axis=1)
    build.knob([0, 0, top + 13], [5, 5, 5])
    for side in (-1, 1):
        build.knob([side * 15, -2, top - 1.5], [8.5, 9, 4.5])
        build.bar([side * 9, 0, 0], [side * 14, -2, top - 4], 11, 12)


def _atlas(build: _Builder, size: VertebraSize) -> None:
    """C1: a ring without a body; the dens of C2 stands in its front."""
    factor = size.width / 17
    for side in (-1, 1):
        ring = np.array([(0, 11, 0), (9, 8.5, 0), (17, 0, 0), (19, -12, 1), (14, -24, 1), (0, -31, 1)]) * [side, 1, 1]
        thickness = (7, 6, 8, 7, 6.5, 8)
        for (start, end), across in zip(pairwise(ring * factor), thickness, strict=False):
            build.bar(start, end, across, 1.5 * across)
        build.knob(np.array([side * 18, -3, 0]) * factor, np.array([8, 11, 9]) * factor)
        tip = np.array([side * (size.transverse / 2 / factor - 4), -5, -1]) * factor
        build.bar(np.array([side * 22, -1, -2]) * factor, tip, 4, 6)
        build.bar(np.array([side * 22, -9, -2]) * factor, tip, 4.5, 6)
