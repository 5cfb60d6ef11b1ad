"""Who is scanned: a spine with its sizes and anomalies, the age's bone, and what contrast medium reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from verse_utils.labels import ANATOMICAL_ORDER, L6, T13
from verse_utils.phantom.anatomy import Bone, Part
from verse_utils.phantom.curves import Curves, Link, draw_curves, stack
from verse_utils.phantom.shapes import Capsule, Ellipsoid, Point, Pose, Solid, Vector
from verse_utils.phantom.trunk.sizes import VertebraSize, draw_size

_T12 = 19
# How often a spine has each anomaly; VerSe was enriched with them to about this share.
_ANOMALIES = {"L6": 0.07, "T13": 0.06, "eleven ribs": 0.05}


@dataclass(frozen=True)
class UnevenBone(Bone):
    """Bone whose shell varies, and whose surface lies a little within its mask, as annotators draw it."""

    def part(self, solids: Sequence[Solid], hollow: Sequence[Solid] = (), label: int = 0) -> Part:
        """Bone of this density."""
        return replace(super().part(solids, hollow, label), inset_mm=0.5, uneven=0.3)


@dataclass(frozen=True)
class Contrast:
    """HU of what blood and urine reach, and of what was drunk.

    Attributes:
        arteries: the aorta and the left heart.
        veins: the vena cava, the right heart, and the portal vein.
        cortex: kidneys.
        urine: bladder.
        liver: liver, and less so spleen.
        bowel: contents of stomach and bowel.
    """

    arteries: float
    veins: float
    cortex: float
    urine: float
    liver: float
    bowel: float


@dataclass(frozen=True)
class Person:
    """What all parts of a body share.

    Attributes:
        poses: vertebra's number -> frame at its body's centre, the lowest first. The origin is the sacrum's plate.
        sizes: vertebra's number -> its sizes.
        scale: of the whole body; 1 is the mean adult.
        age: years.
        bone: the density of the bones.
        contrast: of the vessels and the bowel.
        fat_mm: thickness of the fat below the skin.
        arms_up: beside the head, as for most scans of the trunk, or beside the body.
        rng: draws whatever else differs.
    """

    poses: dict[int, Pose]
    sizes: dict[int, VertebraSize]
    scale: float
    age: float
    bone: Bone
    contrast: Contrast
    fat_mm: float
    arms_up: bool
    rng: np.random.Generator

    def at(self, level: float, offset: Point = (0, 0, 0)) -> Vector:
        """A point at a level's height, ``offset`` mm right, in front and above of the body's centre.

        Args:
            level: VerSe's number, 24 at most, or T13's; positions between levels are interpolated.
            offset: in the scanner's directions, for a body of the mean size.
        """
        level = 19.5 if level == T13 else level
        numbers = sorted(number for number in self.poses if number <= 24)
        origins = np.array([self.poses[number].origin for number in numbers])
        origin = np.array([np.interp(level, numbers, origins[:, axis]) for axis in range(3)])
        return origin + self.scale * np.asarray(offset, float)

    def ball(self, level: float, offset: Point, radii: Point, axes: np.ndarray | None = None) -> Solid:
        """An ellipsoid with its centre as in ``at``."""
        pose = Pose(self.at(level, offset), np.eye(3) if axes is None else axes)
        return Ellipsoid(pose, self.scale * np.asarray(radii, float))

    def path(self, *stations: tuple[float, Point]) -> list[Vector]:
        """Points of ``at`` for a level and an offset each."""
        return [self.at(level, offset) for level, offset in stations]

    def pair(self, stations: Sequence[tuple[float, Point]], radius: float, end_radius: float) -> list[Capsule]:
        """A tube on the right, and its mirror image on the left."""
        sides = ([(level, mirrored(offset, side)) for level, offset in stations] for side in (-1, 1))
        return [rod for points in sides for rod in tube(self.path(*points), radius, end_radius)]

    def chance(self, share: float) -> bool:
        """True in this share of the bodies."""
        return bool(self.rng.random() < share)


def draw_person(rng: np.random.Generator) -> Person:
    """Draw a body: its age, size, curves, anomalies, contrast and fat."""
    scale, age = rng.uniform(0.94, 1.12), rng.uniform(20, 90)
    disc_share = np.clip(rng.normal(1.1 - 0.004 * (age - 20), 0.12), 0.6, 1.2)
    sizes = {number: draw_size(number, scale, disc_share, rng) for number in draw_levels(rng)}
    _fracture(sizes, age, rng)
    return clothe(stack_spine(sizes, draw_curves(rng)), sizes, scale, age, rng)


def clothe(
    poses: dict[int, Pose], sizes: dict[int, VertebraSize], scale: float, age: float, rng: np.random.Generator
) -> Person:
    """Draw what else a body with this spine has."""
    contrast = _draw_contrast(rng)
    fat_mm = rng.gamma(4, 4) + 4
    return Person(poses, sizes, scale, age, _draw_bone(age, rng), contrast, fat_mm, bool(rng.random() < 0.7), rng)


def draw_levels(rng: np.random.Generator) -> list[int]:
    """VerSe's numbers from the lowest vertebra to the highest; a few spines have an L6, a T13, or no T12."""
    shares = [*_ANOMALIES.values()]
    anomaly = str(rng.choice([*_ANOMALIES, ""], p=[*shares, 1 - sum(shares)]))
    left_out = {"L6": {T13}, "T13": {L6}, "eleven ribs": {L6, T13, _T12}}.get(anomaly, {L6, T13})
    return [number for number in reversed(ANATOMICAL_ORDER) if number not in left_out]


def stack_spine(sizes: dict[int, VertebraSize], curves: Curves) -> dict[int, Pose]:
    """Stack vertebrae, the lowest first, on the sacrum."""
    return stack({number: Link(size.disc, size.height, size.tilt_deg) for number, size in sizes.items()}, curves)


def _fracture(sizes: dict[int, VertebraSize], age: float, rng: np.random.Generator) -> None:
    """Flatten a vertebra between T5 and L5 of some of the old."""
    if rng.random() < (age - 50) / 100:
        number = int(rng.choice([number for number in sizes if 12 <= number <= 24]))
        sizes[number] = replace(sizes[number], height=sizes[number].height * rng.uniform(0.55, 0.85))


def _draw_bone(age: float, rng: np.random.Generator) -> Bone:
    """Trabecular bone of 50 to 250 HU, less with age, in a shell that thins."""
    spongy = np.clip(rng.normal(245 - 2.1 * (age - 20), 25), 50, 250)
    shell_mm = rng.uniform(0.9, 1.5) - 0.003 * (age - 20)
    return UnevenBone(float(spongy), rng.uniform(500, 900), shell_mm, rng.uniform(0.1, 0.24) * spongy + 12)


def _draw_contrast(rng: np.random.Generator) -> Contrast:
    phase = rng.choice(["none", "arterial", "venous"], p=[0.4, 0.25, 0.35])
    bowel = rng.uniform(150, 450) if rng.random() < 0.35 else 20.0
    if phase == "none":
        return Contrast(42, 42, 32, 5, 55, bowel)
    if phase == "arterial":
        arteries = rng.uniform(220, 450)
        return Contrast(arteries, rng.uniform(60, 200), rng.uniform(130, 200), 5, 70, bowel)
    arteries = rng.uniform(120, 190)
    urine = rng.uniform(150, 600) if rng.random() < 0.3 else 8.0
    return Contrast(arteries, arteries - 5, rng.uniform(150, 210), urine, rng.uniform(90, 125), bowel)


def tube(points: Sequence[Vector], radius: float, end_radius: float | None = None) -> list[Capsule]:
    """A chain of rods through points, from one radius to the other."""
    radii = np.linspace(radius, radius if end_radius is None else end_radius, len(points))
    return [Capsule(points[i], points[i + 1], radii[i], radii[i + 1]) for i in range(len(points) - 1)]


def flesh(solids: Sequence[Solid], hu: float, texture_hu: float = 0.0) -> Part:
    """Soft tissue."""
    return Part(tuple(solids), hu, texture_hu=texture_hu)


def shifted(point: Vector, *offset: float) -> Vector:
    """A point moved by x, y, z mm."""
    moved: Vector = point + np.array(offset)
    return moved


def mirrored(point: Point, side: int) -> list[float]:
    """The point on the right (1) or left (-1)."""
    return [side * point[0], *point[1:]]
