"""The bones at both ends of the spine, none of them labelled: pelvis and thighs below, skull base and jaw above."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from verse_utils.phantom.anatomy import Part
from verse_utils.phantom.shapes import Capsule, Drum, Ellipsoid, Pose, Solid, Vector, rotation
from verse_utils.phantom.trunk.person import Person, flesh, mirrored, tube

_SACRAL_TILT_DEG = 42.0  # of the upper end plate, which is the origin
_HIP_JOINT = (88, 22, -105)  # mm for the mean adult, as all points below, on the right
_CREST = ((122, 64, -20), (131, 48, 8), (132, 24, 28), (124, -4, 38), (104, -32, 32), (78, -56, 14), (58, -74, -14))
_ROOF = (86, 4, -74)
_SYMPHYSIS = (9, 74, -132)
_TUBER = (58, -20, -166)
_TROCHANTER = (136, 4, -128)


def _points(person: Person, points: Sequence[Sequence[float]], side: int) -> list[Vector]:
    return [person.scale * np.array(mirrored(point, side)) for point in points]


def sacrum(person: Person) -> Part:
    """Five fused segments with wings and a crest, a canal, and S1's articular processes behind those of L5."""
    solids: list[Solid] = []
    hollow: list[Solid] = []
    scale, top = person.scale, np.zeros(3)
    for segment in range(5):
        axes = rotation(0, -np.deg2rad(_SACRAL_TILT_DEG + 11 * segment))
        height, width, depth = (np.array([28 - 3 * segment, 50 - 7 * segment, 32 - 5 * segment])) * scale
        frame = Pose(top - axes[:, 2] * height / 2, axes)
        solids.append(Drum(frame, np.array([width, depth, height + 1])))
        wing = (30 - 6.5 * segment) * scale
        behind = -depth / 2 - (13 - 2 * segment) * scale
        for side in (-1, 1):
            middle = frame.to_world([side * (width / 2 + 0.45 * wing), -0.3 * depth, 0])
            solids.append(Ellipsoid(Pose(middle, axes), np.array([0.85 * wing, 0.55 * depth, 0.62 * height])))
            lamina = frame.to_world([side * 0.45 * width, behind + 4, 0]), frame.to_world([0, behind - 3, 0])
            solids.append(Capsule(*lamina, 3.0, 3.0, axes[:, 2], 6 / height))
        solids.append(Capsule(frame.to_world([0, behind - 2, 0]), frame.to_world([0, behind - 9, -3]), 4, 3.5))
        if segment < 4:
            canal = frame.to_world([0, -depth / 2 - 5 * scale, 0])
            hollow.append(Drum(Pose(canal, axes), np.array([26 - 4 * segment, 10 - 1.5 * segment, height + 2]) * scale))
        if segment == 0:
            for side in (-1, 1):
                base = frame.to_world([side * 24 * scale, behind + 5, 0])
                tip = frame.to_world([side * 25 * scale, behind + 3, height / 2 + 10])
                solids.append(Capsule(base, tip, 5 * scale, 4 * scale, axes[:, 1], 0.65))
        top = top - axes[:, 2] * height
    solids += tube([top, top + scale * np.array([0, 6, -14]), top + scale * np.array([0, 18, -24])], 7 * scale, 4)
    part = person.bone.part(solids, hollow)
    return Part(part.solids, part.hu, part.shell_hu, part.shell_mm, part.texture_hu, part.hollow, rim_mm=1.2)


def hip_bones(person: Person) -> list[Part]:
    """Iliac wings, sockets, pubis and ischium, with a gap to the sacrum and to the heads of the femora."""
    parts = []
    scale = person.scale
    for side in (-1, 1):
        crest = np.array(_points(person, _CREST, side))
        roof, joint, symphysis, tuber = _points(person, (_ROOF, _HIP_JOINT, _SYMPHYSIS, _TUBER), side)
        fine = np.linspace(0, len(crest) - 1, 18)
        rim = np.stack([np.interp(fine, np.arange(len(crest)), crest[:, axis]) for axis in range(3)], axis=1)
        tangents = np.gradient(rim, axis=0)
        # The wing's back part starts nearer to the midline, along the joint with the sacrum.
        roots = roof + np.linspace(0, 1, len(rim))[:, None] ** 2 * scale * np.array([-side * 16, -30, 6])
        wing: list[Solid] = [
            Capsule(root, point, 8 * scale, 4.5 * scale, tangent / np.linalg.norm(tangent), 0.42)
            for root, point, tangent in zip(roots, rim, tangents, strict=True)
        ]
        wing += tube(list(rim), 6.5 * scale)
        frame = Pose(joint, np.eye(3))
        socket = Ellipsoid(frame, np.full(3, 35.0) * scale)
        ischium = tube([joint + scale * np.array([-side * 12, -20, -20]), tuber], 14 * scale, 13 * scale)
        pubis = [
            *tube([joint + scale * np.array([-side * 18, 18, -6]), symphysis], 10 * scale, 9 * scale),
            *tube([symphysis + scale * np.array([0, -2, -12]), tuber], 7 * scale, 7 * scale),
        ]
        # The socket is open to the side, and in front and below.
        out = joint + scale * np.array([side * 60, 18, -30])
        hollow: list[Solid] = [Ellipsoid(frame, np.full(3, 26.5) * scale), Capsule(joint, out, 26 * scale, 40 * scale)]
        parts.append(person.bone.part([*wing, socket, *ischium, *pubis], hollow))
    return parts


def femora(person: Person) -> list[Part]:
    """Head, neck, trochanter and shaft; now and then the head of one is metal."""
    parts = []
    scale = person.scale
    metal_side = int(person.rng.choice([-1, 1])) if person.chance(0.08) else 0
    for side in (-1, 1):
        joint, trochanter = _points(person, (_HIP_JOINT, _TROCHANTER), side)
        down = trochanter + scale * np.array([0, 4, -260])
        head: list[Solid] = [Ellipsoid(Pose(joint, np.eye(3)), np.full(3, 23.5) * scale)]
        head += tube([joint, trochanter + scale * np.array([-side * 8, 0, 0])], 15 * scale, 17 * scale)
        shaft = tube([trochanter + scale * np.array([-side * 12, 0, -25]), down], 16 * scale, 14 * scale)
        density = person.bone.part(head)
        parts.append(Part(tuple(head), density.hu, density.shell_hu, 1.6, density.texture_hu, rim_mm=1.5))
        parts.append(Part(tuple(shaft), 20, 1100, 5.0))
        if side == metal_side:
            stem = [joint, trochanter + scale * np.array([-side * 14, 0, -10]), down]
            parts.append(Part((*head[:1], *tube(stem, 8 * scale, 6 * scale)), 3000))
    return parts


def skull(person: Person) -> list[Part]:
    """The base with its condyles on C1 and a hole for the cord, the vault, the petrous bones, the face and the jaw."""
    atlas, scale = person.poses[1], person.scale

    def world(point: Sequence[float]) -> Vector:
        return atlas.origin + scale * np.array(point, float)

    def ball(point: Sequence[float], radii: Sequence[float]) -> Solid:
        return Ellipsoid(Pose(world(point), np.eye(3)), scale * np.array(radii, float))

    vault, brain = ball((0, 2, 88), (75, 92, 76)), ball((0, 2, 88), (69, 86, 69))
    foramen = Capsule(world((0, -10, -5)), world((0, -10, 40)), 15 * scale, 15 * scale)
    pairs = [world(mirrored(point, side)) for side in (-1, 1) for point in ((17, -2, 16), (38, 4, 26), (52, -8, 12))]
    condyles: list[Solid] = [ball((side * 17, -3, 16), (7, 10, 6.5)) for side in (-1, 1)]
    clivus = tube([world((0, 12, 14)), world((0, 30, 36))], 9 * scale)
    mastoids = [solid for i in (1, 4) for solid in tube([pairs[i], pairs[i + 1]], 12 * scale, 9 * scale)]
    jaw_points = [
        (-50, 22, 20),
        (-44, 28, -28),
        (-26, 72, -42),
        (0, 90, -44),
        (26, 72, -42),
        (44, 28, -28),
        (50, 22, 20),
    ]
    teeth = [ball((x, 92 - 0.028 * x * x, z), (4, 4.5, 8)) for x in range(-27, 28, 9) for z in (-30, -15)]
    face = ball((0, 66, 20), (38, 26, 34))
    sinus = [ball((side * 22, 68, 18), (12, 15, 16)) for side in (-1, 1)]
    airway = tube([world((0, 84, 24)), world((0, 36, 12)), world((0, 28, -30))], 8 * scale)
    return [
        flesh([vault, face], 45),
        Part((face,), 150, 600, 1.5),
        person.bone.part([vault, *condyles, *clivus, *mastoids], [brain, foramen]),
        Part((brain,), 35),
        Part(tuple(tube([pairs[1], pairs[1] * 0.5 + world((0, 20, 30)) * 0.5], 7)), 900),
        Part((*sinus, *airway), -950),
        person.bone.part(tube([world(point) for point in jaw_points], 6 * scale)),
        Part(tuple(teeth), 1600),
    ]
