"""The anatomy of a phantom: a spine with its curves, and the body around it, as solids in RAS millimetres.

Sizes are round figures inside the adult range and are scaled at random; they are no measurements of anybody. The
origin is the upper end plate of the sacrum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from verse_utils.labels import L6, T13
from verse_utils.phantom.curves import Link, draw_curves, stack
from verse_utils.phantom.shapes import Capsule, Column, Drum, Ellipsoid, Pose, Solid, Vector, rotation, union_bounds

# Levels at which the tables below give sizes; between them, sizes are interpolated by VerSe's numbers.
_LEVELS = (1, 3, 7, 8, 13, 19, 20, 24)  # C1 C3 C7 T1 T6 T12 L1 L5
_SIZES_MM: dict[str, tuple[float, ...]] = {
    "width": (18, 17, 22, 26, 29, 40, 42, 50),
    "depth": (15, 15, 17, 18, 26, 30, 31, 35),
    "height": (14, 13, 14, 16, 20, 25, 26, 28),
    "disc": (4, 5, 5, 4, 4.5, 7, 8, 11),  # below the vertebra
    "canal_width": (26, 24, 24, 21, 17, 22, 23, 26),
    "canal_depth": (18, 15, 15, 15, 15, 16, 17, 17),
    "transverse": (72, 50, 60, 72, 62, 48, 70, 88),  # from tip to tip
    "spinous": (14, 16, 30, 30, 35, 25, 30, 26),
    "spinous_slope_deg": (10, 20, 20, 30, 60, 20, 10, 10),
    "pedicle_radius": (2.6, 2.8, 3.2, 4, 3.2, 5, 4.5, 7),
    # Forward tilt of the vertebra's axis: lordosis, kyphosis, lordosis from below.
    "tilt_deg": (-2, 2, 20, 25, 2, -14, -12, 25),
}
_SACRAL_TILT_DEG = 42.0
_RIB_GAP_MM = (1.5, 2.0)  # the costovertebral joint, which keeps ribs apart from vertebrae


@dataclass(frozen=True)
class Part:
    """Solids of one tissue.

    Attributes:
        solids: taken as one.
        hu: of the inside.
        shell_hu: of the outer ``shell_mm``; None where there is no shell.
        shell_mm: thickness of the shell.
        texture_hu: standard deviation of the inside's texture.
        hollow: solids that are cut out, as the vertebral canal.
        label: VerSe's number, 0 where nothing is to be labelled.
        rim_mm: thickness of the cartilage around it, which keeps it apart from what was painted before.
        inset_mm: how far within the solids the tissue ends; the label fills them, as masks reach beyond the bone.
        uneven: share by which the shell's thickness varies from place to place.
        thick_behind: where the shell is thicker: behind the origin of this frame, as in vertebral arches.
    """

    solids: tuple[Solid, ...]
    hu: float
    shell_hu: float | None = None
    shell_mm: float = 0.0
    texture_hu: float = 0.0
    hollow: tuple[Solid, ...] = ()
    label: int = 0
    rim_mm: float = 0.0
    inset_mm: float = 0.0
    uneven: float = 0.0
    thick_behind: Pose | None = None


@dataclass(frozen=True)
class Trunk:
    """The body's skin and its fat.

    Attributes:
        outline: of the skin; it goes on above and below.
        fat_mm: thickness of the fat below the skin.
    """

    outline: Column
    fat_mm: float


@dataclass(frozen=True)
class Anatomy:
    """A whole body.

    Attributes:
        parts: painted in this order, later ones over earlier ones.
        trunk: what is inside it and in no part is muscle.
        body_pose: vertebra's number -> frame at the centre of its body.
        body_size_mm: vertebra's number -> width, depth and height of its body.
    """

    parts: tuple[Part, ...]
    trunk: Trunk
    body_pose: dict[int, Pose]
    body_size_mm: dict[int, Vector]


@dataclass(frozen=True)
class Bone:
    """How dense this body's bones are."""

    spongy_hu: float
    shell_hu: float
    shell_mm: float
    texture_hu: float

    def part(self, solids: Sequence[Solid], hollow: Sequence[Solid] = (), label: int = 0) -> Part:
        return Part(tuple(solids), self.spongy_hu, self.shell_hu, self.shell_mm, self.texture_hu, tuple(hollow), label)


def make_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a body: its curves, sizes, density, contrast, and now and then an L6 or a T13."""
    scale = rng.uniform(0.88, 1.12)
    bone = Bone(rng.uniform(90, 230), rng.uniform(450, 750), rng.uniform(1.0, 1.6), rng.uniform(25, 50))
    poses, sizes = _spine(rng, scale)
    vertebrae = [_vertebra(label, poses[label], sizes[label], bone) for label in poses]
    ribs = [
        _ribs(label, poses[label], sizes[label], scale, bone, rng)
        for label in poses
        if 8 <= label <= 19 or label == T13
    ]
    lowest = min(poses, key=lambda label: poses[label].origin[2])
    trunk = _trunk(poses, scale, rng)
    parts = (
        *_organs(poses, trunk, scale, rng),
        *_discs(poses, sizes),
        *_pelvis(poses[lowest].origin[0], scale, bone),
        *_skull(poses[1], scale, bone),
        *(rib for rib in ribs if rib is not None),
        *vertebrae,
    )
    body_size = {label: np.array([size["width"], size["depth"], size["height"]]) for label, size in sizes.items()}
    return Anatomy(parts, trunk, poses, body_size)


def _levels(rng: np.random.Generator) -> list[int]:
    """VerSe's numbers from the lowest vertebra to the highest."""
    lumbar, thoracic = list(range(20, 25)), list(range(8, 20))
    variant = rng.random()
    if variant < 0.1:
        lumbar.append(L6)
    elif variant < 0.2:
        thoracic.append(T13)
    return [*lumbar[::-1], *thoracic[::-1], *range(7, 0, -1)]


def _sizes(label: int, scale: float) -> dict[str, float]:
    level = {L6: 24, T13: 19}.get(label, label)
    sizes = {name: float(np.interp(level, _LEVELS, values)) for name, values in _SIZES_MM.items()}
    return {name: value if name.endswith("_deg") else value * scale for name, value in sizes.items()}


def _spine(rng: np.random.Generator, scale: float) -> tuple[dict[int, Pose], dict[int, dict[str, float]]]:
    """Stack vertebrae on the sacrum along curves that are drawn: the pose and the sizes of each."""
    curves = draw_curves(rng)
    sizes = {label: _sizes(label, scale) for label in _levels(rng)}
    links = {label: Link(size["disc"], size["height"], size["tilt_deg"]) for label, size in sizes.items()}
    return stack(links, curves), sizes


def _vertebra(label: int, pose: Pose, size: dict[str, float], bone: Bone) -> Part:
    if label == 1:
        return _atlas(pose, size, bone)
    width, depth, height = size["width"], size["depth"], size["height"]
    canal_x, canal_y, pedicle = size["canal_width"] / 2, size["canal_depth"], size["pedicle_radius"]
    back = -depth / 2  # the body's rear wall
    up, right = pose.axes[:, 2], pose.axes[:, 0]
    slope = np.deg2rad(size["spinous_slope_deg"])
    spinous_root = np.array([0, back - canal_y - 3, -0.1 * height])
    spinous_tip = spinous_root + size["spinous"] * np.array([0, -np.cos(slope), -np.sin(slope)])

    def rod(
        start: Sequence[float] | Vector,
        end: Sequence[float] | Vector,
        start_radius: float,
        end_radius: float | None = None,
        flat_axis: Vector | None = None,
        flatness: float = 1.0,
    ) -> Capsule:
        ends = pose.to_world(start), pose.to_world(end)
        return Capsule(*ends, start_radius, start_radius if end_radius is None else end_radius, flat_axis, flatness)

    solids: list[Solid] = [
        Drum(pose, np.array([width, depth, height]), waist=0.1),
        rod(spinous_root, spinous_tip, 3.4, 3.0, up, 0.5),
    ]
    for side in (-1, 1):
        corner = np.array([side * (canal_x + 0.6 * pedicle), back - 0.5 * canal_y, 0.2 * height])
        tip = np.array([side * size["transverse"] / 2, corner[1] - (8 if 8 <= label <= 19 else 3), 0.22 * height])
        upper = np.array([side * (canal_x + 3), back - 0.45 * canal_y, 0.2 * height])
        lower = np.array([side * canal_x, back - 0.85 * canal_y, -0.1 * height])
        solids += [
            rod([side * 0.3 * width, 0.7 * back, 0.22 * height], corner, pedicle),
            rod(corner, tip, min(pedicle, 4.5), 3.2),
            rod(corner - np.array([0, 0.1 * canal_y, 0.1 * height]), spinous_root, 3.0, 2.6, up, 0.5),
            rod(upper, upper + np.array([side * 1, 1.5, 0.4 * height]), 3.4, 2.8),
            rod(lower, lower - np.array([0, 0.12 * canal_y, 0.5 * height]), 3.4, 2.8),
        ]
    if label == 2:
        solids.append(rod([0, 1, 0.5 * height], [0, 1, 0.5 * height + 15], 5.0, 4.5, right, 1.0))
    return bone.part(solids, [_canal(pose, size)], label)


def _canal(pose: Pose, size: dict[str, float]) -> Solid:
    centre = pose.to_world([0, -(size["depth"] + size["canal_depth"]) / 2, 0])
    return Drum(Pose(centre, pose.axes), np.array([size["canal_width"], size["canal_depth"] - 1, 6 * size["height"]]))


def _atlas(pose: Pose, size: dict[str, float], bone: Bone) -> Part:
    """C1: a ring without a body; the dens of C2 stands in its front."""
    solids: list[Solid] = []
    for side in (-1, 1):
        ring = [(0, 10, 2), (side * 11, 6, 2), (side * 18, -6, 1), (side * 15, -20, 0), (0, -28, 0)]
        radii = (3.2, 3.4, 4.0, 3.2, 3.0)
        for (start, end), (r0, r1) in zip(pairwise(ring), pairwise(radii), strict=True):
            solids.append(Capsule(pose.to_world(start), pose.to_world(end), r0, r1))
        solids.append(Ellipsoid(Pose(pose.to_world([side * 18, -3, 0]), pose.axes), np.array([7.0, 9.0, 8.0])))
        tip = [side * size["transverse"] / 2, -6, 0]
        solids.append(Capsule(pose.to_world([side * 20, -4, 0]), pose.to_world(tip), 4.0, 3.0))
    return bone.part(solids, label=1)


def _ribs(
    label: int, pose: Pose, size: dict[str, float], scale: float, bone: Bone, rng: np.random.Generator
) -> Part | None:
    """The pair of ribs of a thoracic vertebra, from the joint around the chest."""
    level = 12.5 if label == T13 else label - 7
    if label == T13 and rng.random() < 0.5:
        return None
    reach = float(np.interp(level, (1, 3, 6, 10, 12, 13), (0.5, 0.8, 1.0, 1.02, 0.85, 0.8))) * scale
    end_deg = float(np.interp(level, (1, 10, 11, 12, 13), (60, 45, -10, -32, -45)))
    radius, gap = rng.uniform(3.6, 4.6), rng.uniform(*_RIB_GAP_MM)
    # Where the transverse process ends; the rib passes before it.
    tip_y = -size["depth"] / 2 - 0.5 * size["canal_depth"] - 8
    head = np.array([size["width"] / 2 + gap + radius, -0.4 * size["depth"], 0.3 * size["height"]])
    neck = np.array([size["transverse"] / 2 + 2, tip_y + 3.4 + gap + radius, 0.25 * size["height"]])
    angles = np.deg2rad(np.linspace(-66, end_deg, 14))
    centre_y, half_x, half_y = 42 * reach, 128 * reach, 95 * reach
    drop = np.linspace(4, 55 * reach, len(angles))
    around = np.stack([half_x * np.cos(angles), centre_y + half_y * np.sin(angles), -drop], axis=1)
    solids: list[Solid] = []
    for side in (-1, 1):
        path = [head, neck, *around]
        points = [pose.to_world(point * [side, 1, 1]) for point in path]
        solids += [Capsule(a, b, radius, radius, pose.axes[:, 2], 0.7) for a, b in pairwise(points)]
    return replace(bone.part(solids), texture_hu=0.0)


def _discs(poses: dict[int, Pose], sizes: dict[int, dict[str, float]]) -> list[Part]:
    parts = []
    for label, pose in poses.items():
        if label == 1:
            continue
        size = sizes[label]
        below = pose.to_world([0, 0, -(size["height"] + size["disc"]) / 2])
        shape = np.array([0.96 * size["width"], 0.96 * size["depth"], size["disc"] + 1])
        parts.append(Part((Drum(Pose(below, pose.axes), shape),), hu=90))
    return parts


def _pelvis(x_mm: float, scale: float, bone: Bone) -> list[Part]:
    """Sacrum and hip bones: bone that is not to be labelled."""
    tilt = np.deg2rad(_SACRAL_TILT_DEG)
    sacrum: list[Solid] = []
    top = np.zeros(3)
    for segment in range(5):
        axes = rotation(0, -(tilt + np.deg2rad(12) * segment))
        height = (26 - 2.5 * segment) * scale
        centre = top - axes[:, 2] * height / 2
        width, depth = (52 - 7 * segment) * scale, (30 - 4 * segment) * scale
        sacrum.append(Drum(Pose(centre, axes), np.array([width, depth, height + 1])))
        wing = (24 - 4 * segment) * scale
        for side in (-1, 1):
            middle = centre + axes @ np.array([side * (width / 2 + 0.5 * wing), -0.2 * depth, 0])
            sacrum.append(Ellipsoid(Pose(middle, axes), np.array([0.8 * wing, 0.4 * depth, 0.6 * height])))
        sacrum.append(Capsule(centre - axes[:, 1] * depth / 2, centre - axes[:, 1] * (depth / 2 + 18), 4, 3))
        top = top - axes[:, 2] * height
    hips: list[Solid] = []
    for side in (-1, 1):
        joint = np.array([x_mm + side * 58, -38, -30]) * scale
        for angle in np.deg2rad(np.linspace(-20, 100, 7)):
            rim = joint + scale * np.array(
                [side * (25 + 55 * np.sin(angle)), 95 * np.sin(angle) - 15, 78 * np.cos(angle)]
            )
            hips.append(Capsule(joint, rim, 7, 5))
        socket = joint + scale * np.array([side * 42, 50, -70])
        hips.append(Capsule(joint, socket, 9, 16))
    return [bone.part(hips), bone.part(sacrum)]


def _skull(atlas: Pose, scale: float, bone: Bone) -> list[Part]:
    centre = atlas.to_world([0, 12, 20 + 62 * scale])
    head = Ellipsoid(Pose(centre, np.eye(3)), np.array([72, 92, 62]) * scale)
    brain = Ellipsoid(Pose(centre, np.eye(3)), np.array([72, 92, 62]) * scale - 6)
    return [bone.part([head]), Part((brain,), hu=35)]


def _trunk(poses: dict[int, Pose], scale: float, rng: np.random.Generator) -> Trunk:
    """An outline that follows half of the spine's curve; narrow at the neck."""
    labels = sorted(poses, key=lambda label: poses[label].origin[2])
    origins = np.array([poses[label].origin for label in labels])
    z = np.array([-250, -60, *origins[:, 2], origins[-1, 2] + 250])
    spine = np.stack([np.interp(z, origins[:, 2], origins[:, axis]) for axis in (0, 1)], axis=1)
    fat = rng.uniform(10, 35)
    neck_z, shoulder_z, chest_z = (poses[label].origin[2] for label in (6, 8, 11))
    half_x = np.interp(z, (-250, -60, chest_z, shoulder_z, neck_z), (175, 160, 165, 130, 75)) * scale + fat
    half_y = np.interp(z, (-250, -60, chest_z, shoulder_z, neck_z), (115, 110, 118, 85, 80)) * scale + fat
    skin_behind = np.interp(z, (-60, chest_z, neck_z), (85, 70, 62)) * scale + 0.6 * fat
    centre = np.stack([0.5 * spine[:, 0], spine[:, 1] - skin_behind + half_y], axis=1)
    return Trunk(Column(z, centre, np.stack([half_x, half_y], axis=1)), fat)


def _organs(poses: dict[int, Pose], trunk: Trunk, scale: float, rng: np.random.Generator) -> list[Part]:
    """Lungs, belly, vessels with contrast, kidneys, bowel gas: what a threshold stumbles on."""

    def near(label: int, x: float, y: float, z: float, radii: Sequence[float] | Vector) -> Ellipsoid:
        centre = poses[label].origin + scale * np.array([x, y, z])
        return Ellipsoid(Pose(centre, np.eye(3)), scale * np.array(radii, float))

    contrast = rng.uniform(120, 380)
    lungs = [near(12, side * 72, 38, -5, (50, 78, 125)) for side in (-1, 1)]
    belly = [near(21, 0, 75, 0, (125, 62, 120))]
    liver = [near(19, 75, 60, 10, (65, 70, 75))]
    kidneys = [near(20, side * 68, 18, -10 if side > 0 else 0, (26, 24, 52)) for side in (-1, 1)]
    gas = [
        near(22, rng.uniform(-90, 90), rng.uniform(50, 110), rng.uniform(-70, 70), rng.uniform(8, 25, 3))
        for _ in range(8)
    ]
    aorta = [
        poses[label].to_world([-14 * scale, 17 + 0.03 * (24 - label) + 14 * scale, 0]) for label in range(23, 10, -1)
    ]
    cava = [poses[label].to_world([17 * scale, 16 + 14 * scale, 0]) for label in range(24, 17, -1)]
    return [
        Part(tuple(belly), hu=-95),
        Part(tuple(lungs), hu=-850),
        Part(tuple(liver), hu=60 + 0.2 * contrast),
        Part(tuple(kidneys), hu=40 + 0.5 * contrast),
        Part(tuple(gas), hu=-900),
        Part(_tube(aorta, rng.uniform(9, 12) * scale), hu=40 + contrast),
        Part(_tube(cava, 10 * scale), hu=40 + 0.5 * contrast),
    ]


def _tube(points: Sequence[Vector], radius: float) -> tuple[Solid, ...]:
    return tuple(Capsule(a, b, radius, radius) for a, b in pairwise(points))


def table(anatomy: Anatomy) -> list[Part]:
    """The scanner's table below the back: a foam core in a thin hard skin, with rails of metal."""
    low, high = union_bounds([solid for part in anatomy.parts for solid in part.solids])
    length = np.array([0, 0, high[2] - low[2] + 400])
    outline = anatomy.trunk.outline
    back = float((outline.centre_mm[:, 1] - outline.radii_mm[:, 1]).min())
    centre = np.array([0, back - 26, (low[2] + high[2]) / 2])
    slab = Drum(Pose(centre, np.eye(3)), np.array([430, 44, length[2]]))
    ends = [(centre + np.array([side * 170, 0, 0]) - length / 2, length) for side in (-1, 1)]
    rails = [Capsule(start, start + along, 4, 4) for start, along in ends]
    return [Part((slab,), hu=-880, shell_hu=-100, shell_mm=2.5), Part(tuple(rails), hu=900)]
