"""Soft organs: lungs, heart and vessels with or without contrast, and what lies in the abdomen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from verse_utils.phantom.anatomy import Part
from verse_utils.phantom.shapes import Capsule, Column, Ellipsoid, Point, Pose, Solid, Vector, rotation
from verse_utils.phantom.trunk.chest import cavity
from verse_utils.phantom.trunk.person import Person, flesh, tube

FAT_HU, MUSCLE_HU, GAS_HU = -95.0, 50.0, -920.0
# VerSe's numbers that organs are placed by.
C2, C6, C7, T1, T3, T4, T5, T6, T7, T8, T9, T10, T11, T12, L1, L2, L3, L4, L5 = 2, 6, 7, 8, *range(10, 25)
T2 = 9


def chest_organs(person: Person) -> list[Part]:
    """Lungs with their vessels, the mediastinum, the heart and what leaves it."""
    lungs = cavity(person)
    wide = person.scale * person.rng.uniform(0.9, 1.1)
    mediastinum = _column(
        person,
        [(C7, 0, 18, 30, 26), (T1, 0, 22, 30, 26), (T4, -2, 36, 36, 36), (T7, -8, 52, 42, 50), (T12, -8, 60, 40, 56)],
    )
    return [
        flesh([lungs], person.rng.uniform(-890, -780), 25),
        *_lung_vessels(person, lungs),
        *_effusions(person),
        flesh([mediastinum], -60, 25),
        *_spinal_muscles(person),
        *_heart(person, wide),
        *_airways(person),
    ]


def _column(person: Person, rows: Sequence[tuple[float, float, float, float, float]]) -> Column:
    """A column through (level, x, y, half width, half depth) in mm for the mean adult."""
    points = [(person.at(level, [x, y, 0]), half_x, half_y) for level, x, y, half_x, half_y in rows]
    table = np.array(sorted([point[2], point[0], point[1], half_x, half_y] for point, half_x, half_y in points))
    return Column(table[:, 0], table[:, 1:3], person.scale * table[:, 3:])


def _spinal_muscles(person: Person) -> list[Part]:
    """The muscles on both sides of the spinous processes, which keep the lungs off the arches."""
    levels = [number for number in sorted(person.poses) if C7 <= number <= L5]
    rows = [(level, 0.0, -39.0, 42.0, 31.0) for level in levels]
    fatty = person.rng.uniform(0, 30) * (person.age > 50)
    return [flesh([_column(person, rows)], MUSCLE_HU - fatty, 8 + fatty)]


def _lung_vessels(person: Person, lungs: Column) -> list[Part]:
    """Vessels that branch from the hila outward; they thin towards the chest wall."""
    rods: list[Capsule] = []
    low, high = lungs.bounds()
    for side in (-1, 1):
        hilum = person.at(T6, [side * 42, 30, 0])
        for _ in range(26):
            share = person.rng.uniform(0.1, 0.95, 3)
            goal = low + share * (high - low)
            goal[0] = hilum[0] + side * person.rng.uniform(15, 75) * person.scale
            bend = 0.5 * (hilum + goal) + person.rng.normal(0, 9, 3)
            rods += tube([hilum, bend, goal], 3.6, 0.8)
            rods.append(Capsule(bend, goal + person.rng.normal(0, 22, 3), 1.6, 0.7))
    return [flesh(_inside(rods, lungs), 0.6 * person.contrast.veins + 0.4 * person.contrast.arteries)]


def _effusions(person: Person) -> list[Part]:
    """Fluid behind the lungs of some, beside the spine."""
    balls = [
        person.ball(T10, (side * 70, -14, -30), person.rng.uniform((35, 20, 50), (60, 40, 100))) for side in (-1, 1)
    ]
    return [flesh([ball], person.rng.uniform(0, 45), 6) for ball in balls if person.chance(0.12)]


def _inside(rods: Sequence[Capsule], column: Column) -> list[Capsule]:
    """Those rods that end in a column."""
    depth = -column.distance(list(np.array([rod.end for rod in rods], np.float32).T))
    return [rod for rod, inside in zip(rods, depth > 4, strict=True) if inside]


def _heart(person: Person, wide: float) -> list[Part]:
    """The heart's muscle and chambers, and the vessels at it."""
    blood = person.contrast
    turn = rotation(2, np.deg2rad(35)) @ rotation(0, np.deg2rad(-25))

    def ball(level: float, offset: Point, radii: Point) -> Solid:
        return person.ball(level, offset, wide / person.scale * np.array(radii, float), turn)

    muscle = ball(T8 + 0.5, (-22, 70, -4), (48, 58, 48))
    left = [ball(T8 + 0.7, (-44, 72, -10), (20, 32, 24)), ball(T7 + 0.5, (0, 38, 0), (30, 18, 20))]
    right = [ball(T9, (-4, 98, 0), (22, 22, 28)), ball(T8, (30, 68, 6), (20, 26, 28))]
    trunk = person.path((T8, (-14, 84, 0)), (T6, (-16, 66, 0)))
    lung_arteries = [*tube(trunk, 13 * wide), *person.pair([(T6, (8, 62, 0)), (T6, (46, 34, 2))], 11 * wide, 9 * wide)]
    cava = person.path((T2, (24, 42, 0)), (T4, (27, 50, 0)), (T7, (30, 60, 0)))
    # Undiluted contrast medium on its way from the arm.
    dense_hu = blood.veins + (person.rng.uniform(200, 900) if blood.arteries > 100 and person.chance(0.3) else 0)
    carotids = person.pair([(T3, (10, 38, 0)), (T1, (20, 26, 0)), (C2, (27, 16, 0))], 5, 3.2)
    jugulars = person.pair([(T3, (16, 42, 0)), (T1, (32, 26, 0)), (C2, (36, 10, 0))], 6.5, 4.5)
    return [
        flesh([muscle], 45 + 0.25 * blood.veins, 10),
        flesh(left, blood.arteries, 8),
        flesh([*right, *lung_arteries, *jugulars], blood.veins, 8),
        flesh(tube(cava, 9 * wide), dense_hu),
        flesh(carotids, blood.arteries),
        *_aorta(person, wide),
    ]


def _aorta(person: Person, wide: float) -> list[Part]:
    """The aorta from the heart to the groins, calcified in the old; the lower vena cava."""
    arch_stations = ((-8, 62), (12, 68), (10, 58), (-8, 40), (-20, 18))
    arch = [
        person.at(level, (x, y, 0))
        for level, (x, y) in zip((T7 + 0.5, T6, T4 + 0.7, T4, T4 + 0.6), arch_stations, strict=True)
    ]
    before = {number: person.sizes[number].depth / 2 for number in sorted(person.poses)}  # the bodies' front
    down = [
        person.poses[number].to_world(
            [person.scale * np.interp(number, (T5, T12, L4), (-21, -10, -3)), y + 11 * wide, 0]
        )
        for number, y in before.items()
        if T6 <= number <= L4
    ]
    cava = [person.poses[n].to_world([20 * person.scale, y + 8, 0]) for n, y in before.items() if L1 <= n <= L5]
    groins = person.pair([(L4, (3, 28, 0)), (L5, (28, 38, -14)), (L5, (62, 62, -70)), (L5, (88, 88, -130))], 6.5, 5)
    kidneys = person.pair([(L1, (4, 28, 0)), (L1 + 0.3, (30, 22, 0)), (L1 + 0.5, (56, 6, 0))], 3.5, 3)
    aorta = [*tube(arch, 15 * wide, 13 * wide), *tube([arch[-1], *down], 12.5 * wide, 8.5 * wide), *groins]
    plaques = [_plaque(vessel, person.rng) for vessel in aorta if person.chance(0.012 * (person.age - 45))]
    return [
        flesh(tube([person.at(T9, (24, 48, 0)), *cava], 11 * wide, 10 * wide), 0.5 * (person.contrast.veins + 40)),
        flesh([*aorta, *kidneys], person.contrast.arteries, 6),
        Part(tuple(plaques), person.rng.uniform(350, 900)),
    ]


def _plaque(vessel: Capsule, rng: np.random.Generator) -> Solid:
    """Lime in a vessel's wall."""
    side = np.cross(vessel.end - vessel.start, rng.normal(size=3))
    place = vessel.start + rng.random() * (vessel.end - vessel.start)
    centre = place + 0.93 * vessel.start_radius * side / np.linalg.norm(side)
    return Ellipsoid(Pose(centre, np.eye(3)), rng.uniform(1.2, 4.5, 3))


def _airways(person: Person) -> list[Part]:
    """Trachea and main bronchi with their walls, the gullet behind, the thyroid before."""
    trachea = person.path((C6, (0, 30, 0)), (T2, (0, 26, 0)), (T5, (2, 30, 0)))
    airways = [*tube(trachea, 9), *person.pair([(T5, (0, 30, 0)), (T6, (36, 26, -4))], 7, 5)]
    walls = [replace(rod, start_radius=rod.start_radius + 1.5, end_radius=rod.end_radius + 1.5) for rod in airways]
    gullet = person.path((C6, (0, 16, 0)), (T4, (-4, 17, 0)), (T8, (-4, 24, 0)), (T12, (-12, 34, 0)))
    thyroid = [person.ball(C6 + 1, (side * 17, 34, 0), (8, 9, 20)) for side in (-1, 1)]
    return [
        flesh(tube(gullet, 6), 35),
        flesh(thyroid, 90 + 0.3 * person.contrast.veins),
        flesh(walls, 60),
        flesh(airways, -990),
    ]


def abdominal_organs(person: Person, outline: Column) -> list[Part]:
    """Fat within the wall, liver, spleen, stomach, kidneys, psoas, bowel and bladder."""
    blood, ball, rng = person.contrast, person.ball, person.rng
    belly = _belly(person, outline)
    psoas = person.pair([(L1, (24, -6, 0)), (L3, (38, -2, 0)), (L5, (56, 14, -10)), (L5, (84, 52, -125))], 9, 21)
    stones = [ball(L1 + 0.5, (side * 56, 2, 0), rng.uniform(1, 4, 3)) for side in (-1, 1) if person.chance(0.12)]
    kidneys = [
        ball(L1 + 0.6 - 0.3 * (side < 0), (side * 62, 2, 0), (25, 27, 52), rotation(1, side * 0.25)) for side in (-1, 1)
    ]
    pelves = [ball(L1 + 0.6 - 0.3 * (side < 0), (side * 54, 6, 0), (11, 13, 26)) for side in (-1, 1)]
    return [
        flesh([ball(T12 + 0.7, (side * 54, 40, -6 - 8 * (side < 0)), (72, 90, 90)) for side in (-1, 1)], 45),
        flesh([ball(T12 + 0.7, (side * 54, 40, -10 - 8 * (side < 0)), (69, 87, 88)) for side in (-1, 1)], -100, 12),
        flesh([belly], -100, 12),
        flesh([ball(T12, (58, 52, 2), (74, 80, 76)), ball(T12 + 0.4, (4, 82, 10), (62, 38, 36))], blood.liver, 8),
        flesh([ball(T12 - 0.3, (-92, -2, 0), (26, 46, 50))], 0.9 * blood.liver + 5, 8),
        flesh(psoas, MUSCLE_HU, 10),
        flesh(kidneys, blood.cortex, 10),
        flesh(pelves, -40 if blood.urine < 100 else blood.urine),
        *_stomach_and_bowel(person, belly),
        flesh([ball(L5, (0, 70, -125), (44, 36, 34))], blood.urine),
        Part(tuple(stones), rng.uniform(300, 1200)),
    ]


def _belly(person: Person, outline: Column) -> Column:
    """The inside of the abdominal wall: from the spine's front to the belly's muscles, above to the diaphragm."""
    z = np.linspace(-175, person.at(T11)[2], 12)
    centre, radii = (
        np.stack([np.interp(z, outline.z_mm, column) for column in table.T], axis=1)
        for table in (outline.centre_mm, outline.radii_mm)
    )
    levels = np.array([person.poses[number].origin for number in person.poses])
    # Bodies and psoas are painted over it.
    back = np.interp(z, levels[:, 2], levels[:, 1]) - 14 + np.clip(-z, 0, 60) / 2
    wall = radii * (1 - person.fat_mm / radii.min(axis=1, keepdims=True))  # the muscles' outer side
    front = centre[:, 1] + wall[:, 1] - 11
    half_x = wall[:, 0] - 16 - np.clip(-z, 0, 100) * 0.5
    middle = np.stack([centre[:, 0], (front + back) / 2], axis=1)
    return Column(z, middle, np.stack([half_x, (front - back) / 2], axis=1))


def _stomach_and_bowel(person: Person, belly: Column) -> list[Part]:
    """The stomach, the colon's frame and coils of small bowel, each with gas, water, stool or contrast."""
    rng = person.rng
    at, parts = person.at, []
    stomach = [at(T11, (-58, 40, -5)), at(T12 + 0.5, (-60, 66, 0)), at(L1 + 0.6, (-10, 86, 0))]
    parts += _gut(person, stomach, 30, person.contrast.bowel)
    parts.append(flesh([person.ball(T12, (-56, 84, 6), (24, 14, 20))], GAS_HU))
    colon = [
        (L5, (98, 36, -30)),
        (L3, (106, 34, 0)),
        (L1 + 0.8, (98, 58, 0)),
        (L2, (40, 108, 0)),
        (L2, (-40, 108, 0)),
        (L1, (-98, 52, 0)),
        (L3, (-108, 28, 0)),
        (L5, (-96, 36, -20)),
        (L5, (-40, 30, -80)),
        (L5, (0, -22, -110)),
    ]
    points = [_pulled_in(at(level, np.array(offset) + rng.normal(0, 6, 3)), belly) for level, offset in colon]
    for i in range(len(points) - 1):
        content = rng.choice([GAS_HU, rng.uniform(-250, 60), max(person.contrast.bowel, 30)], p=[0.4, 0.4, 0.2])
        parts += _gut(person, points[i : i + 2], rng.uniform(15, 24), content)
    for _ in range(16):
        place = at(rng.uniform(L1 + 0.7, L5 + 0.9), (rng.uniform(-70, 70), rng.uniform(58, 100), rng.uniform(-60, 10)))
        coil = np.cumsum([place, *rng.normal(0, 19, (4, 3))], axis=0)
        coil = coil[belly.distance(list(coil.T.astype(np.float32))) < -12]
        content = rng.choice([GAS_HU, 25.0, person.contrast.bowel], p=[0.15, 0.4, 0.45])
        parts += _gut(person, list(coil), rng.uniform(9, 14), content)
    return parts


def _pulled_in(point: Vector, column: Column, depth_mm: float = 17.0) -> Vector:
    """The point, or where one on its way to the column's axis first lies ``depth_mm`` within."""
    axis = [np.interp(point[2], column.z_mm, centre) for centre in column.centre_mm.T]
    way = np.array([*axis, point[2]]) - point
    tried: list[Vector] = [point + share * way for share in np.linspace(0, 0.9, 10)]
    inside = column.distance(list(np.array(tried, np.float32).T)) < -depth_mm
    return tried[int(inside.argmax())] if inside.any() else tried[-1]


def _gut(person: Person, points: Sequence[Vector], radius: float, content_hu: float) -> list[Part]:
    """A piece of gut: its wall, and what is in it."""
    rough = 60.0 if -500 < content_hu < 0 else 10.0
    radius *= person.scale
    return [flesh(tube(points, radius), 45), flesh(tube(points, radius - 2.5), content_hu, rough)]
