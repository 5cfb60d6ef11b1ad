"""The bones around the chest: ribs with heads at the joints of T1 to T12, sternum, scapulae, clavicles, arms."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from verse_utils.labels import T13
from verse_utils.phantom.anatomy import Part
from verse_utils.phantom.shapes import Capsule, Column, Solid, Vector
from verse_utils.phantom.trunk.person import Person, flesh, mirrored, shifted, tube
from verse_utils.phantom.trunk.vertebrae import transverse_tip

# Ribs 1 to 12, mm for the mean adult: half the width of the loop, how far it reaches before and behind its vertebra's
# centre, how much lower it would be at the front, and where its bone ends (degrees; 90 is the midline at the front).
_HALF_WIDTH = (58, 80, 96, 107, 115, 121, 125, 127, 127, 125, 118, 108)
_FRONT = (62, 82, 97, 108, 117, 124, 130, 134, 136, 134, 128, 120)
_BACK = (38, 44, 48, 50, 52, 54, 56, 57, 58, 58, 55, 52)
_DROP = (30, 45, 58, 66, 74, 80, 84, 84, 80, 74, 62, 45)
_END_DEG = (62, 62, 64, 66, 66, 64, 58, 46, 36, 26, 0, -28)
_START_DEG = -64  # where a rib, coming from its neck, joins the loop
_JOINT_MM = 1.2  # width of the costovertebral joint


def rib_number(vertebra: int) -> int | None:
    """The rib that a vertebra carries, 1 to 12; None where it carries none, 12 (a short one) for T13."""
    if vertebra == T13:
        return 12
    return vertebra - 7 if 8 <= vertebra <= 19 else None


def loop_point(person: Person, vertebra: int, angle_deg: float, outward: float = 0.0) -> Vector:
    """A point of a rib's loop on the right; ``outward`` mm from it."""
    index = (rib_number(vertebra) or 1) - 1
    half_x, front, back = _HALF_WIDTH[index] + outward, _FRONT[index] + outward, _BACK[index] + outward
    angle = np.deg2rad(angle_deg)
    share = (angle_deg - _START_DEG) / (90 - _START_DEG)
    y = (front - back) / 2 + (front + back) / 2 * np.sin(angle)
    return person.at(vertebra, (half_x * np.cos(angle), y, -4 - _DROP[index] * share))


def _mirror(person: Person, vertebra: int, point: Vector, side: int) -> Vector:
    """A world point on the right, mirrored at the vertebra's midline where ``side`` is -1."""
    middle = person.poses[vertebra].origin[0]
    return np.array([middle + side * (point[0] - middle), *point[1:]])


def rib_path(person: Person, vertebra: int, radius: float, side: int) -> list[Vector]:
    """A rib's midline from its head at the joint to the end of its bone."""
    pose, size = person.poses[vertebra], person.sizes[vertebra]
    number = rib_number(vertebra) or 1
    # Heads of ribs 2 to 10 lie at the upper edge, where they touch the disc and the next vertebra, too.
    height = 0.5 if 2 <= number <= 10 else 0.25
    head = np.array([size.width / 2 * 0.93 + _JOINT_MM + radius, -0.36 * size.depth, height * size.height])
    tip = transverse_tip(vertebra, size)
    neck = shifted(tip, -1, 5 + _JOINT_MM + radius, 0)
    joints = [pose.to_world(mirrored(point, side)) for point in (head, neck)]
    angles = np.linspace(_START_DEG, _END_DEG[number - 1], 13)
    if vertebra == T13:
        angles = np.linspace(_START_DEG, person.rng.uniform(-55, -35), 4)
    loop = (_mirror(person, vertebra, loop_point(person, vertebra, angle), side) for angle in angles)
    path = np.array([*joints, *loop])
    for _ in range(2):  # round the rib's angle; the joints stay
        path[2:-1] = 0.5 * path[2:-1] + 0.25 * (path[1:-2] + path[3:])
    return list(path)


def ribs(person: Person) -> list[Part]:
    """Ribs and their cartilage; a T13 carries short ones."""
    parts = []
    sternum = _sternum_line(person)
    for vertebra in person.poses:
        number = rib_number(vertebra)
        if number is None:
            continue
        radius = person.scale * person.rng.uniform(3.6, 4.6)
        bones: list[Solid] = []
        cartilage: list[Solid] = []
        for side in (-1, 1):
            path = rib_path(person, vertebra, radius, side)
            up = person.poses[vertebra].axes[:, 2]
            radii = np.interp(np.arange(len(path)), [0, 1, 2, 5], [1.15, 0.8, 1, 1]) * radius
            bones += [
                Capsule(a, b, r, s, up, 0.65) for (a, b), (r, s) in zip(pairwise(path), pairwise(radii), strict=True)
            ]
            if number <= 10:
                goal = sternum[0] + min((number - 1) / 6.5, 0.95) * (sternum[1] - sternum[0])
                middle = 0.5 * (path[-1] + goal) - [0, 0, 10 if number > 4 else 0]
                cartilage += tube([path[-1], middle, shifted(goal, side * 14, -3, 0)], 4.5)
        calcified = person.rng.uniform(200, 450) if person.chance(0.01 * (person.age - 40)) else 110.0
        parts += [flesh(cartilage, calcified, 0.2 * calcified), person.bone.part(bones)]
    return parts


def _sternum_line(person: Person) -> tuple[Vector, Vector]:
    """Upper and lower end of the sternum."""
    return person.at(9.6, [0, 64, 0]), person.at(15.6, [0, 122, 0])


def sternum(person: Person) -> list[Part]:
    """Manubrium, body and xiphoid; clavicles from the manubrium to the shoulders."""
    top, bottom = _sternum_line(person)
    right = np.array([1.0, 0, 0])
    joint, end = top + 0.28 * (bottom - top), top + 0.88 * (bottom - top)
    scale = person.scale
    plates = [
        Capsule(top, joint, 6.5 * scale, 5.5 * scale, right, 0.26),
        Capsule(shifted(joint, 0, 0, -5), end, 5 * scale, 5.5 * scale, right, 0.3),
        Capsule(end, bottom, 4 * scale, 2.5 * scale, right, 0.5),
    ]
    parts = [person.bone.part(plates)]
    for side in (-1, 1):
        bend = top + scale * np.array([side * 75, -2, 14])
        shoulder = _shoulder(person, side) + scale * np.array([-side * 12, -4, 28])
        parts.append(person.bone.part(tube([top + scale * np.array([side * 24, -4, 6]), bend, shoulder], 6.5, 5.5)))
    return parts


def _shoulder(person: Person, side: int) -> Vector:
    """The centre of the shoulder joint; it is higher where the arm is."""
    return person.at(9.5, [side * 162, -12, 18 if person.arms_up else 0])


def scapulae(person: Person) -> list[Part]:
    """Plates behind ribs 2 to 7, with their spine, acromion and coracoid; turned where the arms are up."""
    solids: list[Solid] = []
    scale = person.scale
    turn = 18 if person.arms_up else 0
    for side in (-1, 1):
        glenoid = _shoulder(person, side) + scale * np.array([-side * 26, -4, -4])
        border = [
            _mirror(person, 11, loop_point(person, vertebra, angle, 15) + scale * np.array([0, 0, lift]), side)
            for vertebra, angle, lift in ((9, -62, 15), (10, -57, 8), (11, -52 + turn / 2, 5), (13, -48 + turn, 10))
        ]
        along = border[-1] - border[0]
        along = along / np.linalg.norm(along)
        for a, b in pairwise(border):
            solids += [Capsule(glenoid, a + share * (b - a), 4 * scale, 2 * scale, along, 0.3) for share in (0, 0.5, 1)]
        solids += tube(border, 3.5 * scale)
        acromion = _shoulder(person, side) + scale * np.array([side * 8, -16, 30])
        spine = [shifted(border[1], 0, -6, 0), shifted(glenoid, 0, -28 * scale, 22 * scale), acromion]
        solids += tube(spine, 4 * scale, 6 * scale)
        coracoid = glenoid + scale * np.array([side * 2, 36, 14])
        solids += [*tube([glenoid, coracoid], 6 * scale), Capsule(glenoid, shifted(glenoid, side * 6, 0, 0), 13, 15)]
    return [person.bone.part(solids)]


def _arm_points(person: Person, side: int) -> list[Vector]:
    """Shoulder, elbow and wrist."""
    shoulder = _shoulder(person, side)
    if person.arms_up:
        elbow = shoulder + person.scale * np.array([side * 10, 45, 290])
        return [shoulder, elbow, elbow + person.scale * np.array([-side * 150, 60, 60])]
    elbow = shoulder + person.scale * np.array([side * 62, -12, -300])
    return [shoulder, elbow, elbow + person.scale * np.array([-side * 6, 50, -230])]


def arms(person: Person) -> tuple[list[Part], list[Part]]:
    """The flesh of shoulders and arms, and their bones."""
    flesh_parts, bones = [], []
    scale = person.scale
    for side in (-1, 1):
        shoulder, elbow, wrist = _arm_points(person, side)
        neck = person.at(8, [side * 45, -18, 8])
        lines = ([neck, shoulder], 44, 46), ([shoulder, elbow], 46, 36), ([elbow, wrist], 36, 24)
        for wider, hu in ((0.35 * person.fat_mm, -95.0), (0.0, 52.0)):
            solids = [solid for points, a, b in lines for solid in tube(points, a * scale + wider, b * scale + wider)]
            flesh_parts.append(flesh(solids, hu))
        down = (elbow - shoulder) / np.linalg.norm(elbow - shoulder)
        head = Capsule(shoulder, shoulder + 12 * down, 23 * scale, 18 * scale)
        apart = scale * np.array([0, 12, 0])
        forearm = [*tube([elbow + apart, wrist + apart], 7, 8), *tube([elbow - apart, wrist - apart], 9, 6)]
        bones.append(person.bone.part([head, *tube([shoulder, elbow], 13 * scale, 11 * scale)]))
        bones.append(person.bone.part(forearm))
    long_bones = [Part(part.solids, part.hu, part.shell_hu, 3.0, rim_mm=1.0) for part in bones]
    return flesh_parts, long_bones


def cavity(person: Person) -> Column:
    """The inside of the rib cage, from the lungs' apices to their lowest recess behind the diaphragm."""
    loops = [vertebra for vertebra in person.poses if 8 <= vertebra <= 19]
    rows = []
    for vertebra in loops:
        index = (rib_number(vertebra) or 1) - 1
        inner = 9
        front, back = _FRONT[index] - inner, _BACK[index] - inner
        centre = person.at(vertebra, [0, (front - back) / 2, -0.45 * _DROP[index]])
        rows.append([centre[2], centre[0], centre[1], _HALF_WIDTH[index] - inner, (front + back) / 2])
    apex = person.at(8, [0, 8, 18])
    rows.append([apex[2], apex[0], apex[1], 38, 30])
    table = np.array(sorted(rows))
    return Column(table[:, 0], table[:, 1:3], person.scale * table[:, 3:])
