"""Put a body together: its skin, its organs and bones, and its spine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from verse_utils.labels import L6
from verse_utils.phantom.anatomy import Anatomy, Part, Trunk
from verse_utils.phantom.shapes import Capsule, Column, Drum, Ellipsoid, Pose, Solid
from verse_utils.phantom.trunk.chest import arms, ribs, scapulae, sternum
from verse_utils.phantom.trunk.organs import abdominal_organs, chest_organs
from verse_utils.phantom.trunk.pelvis_and_skull import femora, hip_bones, sacrum, skull
from verse_utils.phantom.trunk.person import Person, draw_person, shifted, tube
from verse_utils.phantom.trunk.vertebrae import canal, vertebra_solids

CARTILAGE_MM = 0.7  # around vertebrae: facet joints, end plates, joints with the ribs
# Half the body's width and depth without fat, and how far the skin lies behind the spine: at heights above the sacrum
# (mm), then at levels (VerSe's numbers); mm for the mean adult.
_BELOW = {-320: (168, 105, 78), -180: (172, 108, 84), -90: (168, 108, 88), 30: (142, 100, 82)}
_LEVELS = {
    20: (140, 102, 76),
    17: (144, 108, 74),
    14: (142, 108, 72),
    11: (138, 98, 70),
    9: (128, 84, 68),
    8: (100, 74, 66),
    7: (70, 66, 60),
    5: (58, 58, 52),
    2: (62, 66, 58),
}
_ABOVE_C1 = {25: (76, 92, 78), 100: (80, 98, 95), 160: (66, 76, 84)}


def make_trunk(rng: np.random.Generator) -> Anatomy:
    """Draw a body from the head to the thighs, with everything that a CT of a trunk shows."""
    person = draw_person(rng)
    return build(person, [vertebra(person, number) for number in person.poses])


def build(person: Person, vertebrae: Iterable[Part]) -> Anatomy:
    """The body of a person around these vertebrae."""
    outline = skin(person)
    limbs, arm_bones = arms(person)
    parts = (
        *limbs,
        *chest_organs(person),
        *abdominal_organs(person, outline),
        *discs(person),
        *hip_bones(person),
        *femora(person),
        sacrum(person),
        *skull(person),
        *arm_bones,
        *scapulae(person),
        *sternum(person),
        *ribs(person),
        *vertebrae,
        *cord(person),
        *metal(person),
    )
    body_size = {number: np.array([size.width, size.depth, size.height]) for number, size in person.sizes.items()}
    trunk = Trunk(outline, person.fat_mm)
    return Anatomy(tuple(part for part in parts if part.solids), trunk, person.poses, body_size)


def skin(person: Person) -> Column:
    """The outline of trunk, neck and head; it follows the spine."""
    rows = []
    for z, values in _BELOW.items():
        rows.append([z * person.scale, 0.0, 0.0, *values])
    for level, values in _LEVELS.items():
        place = person.at(level)
        rows.append([place[2], 0.6 * place[0], place[1], *values])
    top = person.poses[1].origin
    for z, values in _ABOVE_C1.items():
        rows.append([top[2] + z * person.scale, top[0], top[1] + 6 * person.scale, *values])
    z, x, y, half_x, half_y, behind = _smooth(np.array(sorted(rows))).T
    neck = np.interp(z, [person.at(7)[2], person.at(10)[2]], [0.3, 1])  # there is little fat on neck and head
    half_x, half_y = (person.scale * half + neck * person.fat_mm for half in (half_x, half_y))
    back = y - person.scale * behind - 0.6 * neck * person.fat_mm
    return Column(z, np.stack([x, back + half_y], axis=1), np.stack([half_x, half_y], axis=1))


def _smooth(rows: np.ndarray) -> np.ndarray:
    """Rows every 10 mm of their first column, smoothed over about 50 mm."""
    heights = np.arange(rows[0, 0], rows[-1, 0], 10.0)
    fine = np.stack([np.interp(heights, rows[:, 0], column) for column in rows.T], axis=1)
    for _ in range(6):
        fine[1:-1] = 0.5 * fine[1:-1] + 0.25 * (fine[:-2] + fine[2:])
    return fine


def vertebra(person: Person, number: int) -> Part:
    """A vertebra of the generator's own shape."""
    pose, size = person.poses[number], person.sizes[number]
    hollow = [canal(pose, size)] if number > 1 else []
    return vertebral_bone(person, number, vertebra_solids(number, pose, size), hollow)


def vertebral_bone(person: Person, number: int, solids: Sequence[Solid], hollow: Sequence[Solid] = ()) -> Part:
    """The bone of a vertebra: its arch has thicker walls than its body."""
    pose, size = person.poses[number], person.sizes[number]
    rear = Pose(pose.to_world([0, -0.5 * size.depth - 1, 0]), pose.axes)
    return replace(person.bone.part(solids, hollow, number), rim_mm=CARTILAGE_MM, thick_behind=rear)


def discs(person: Person) -> list[Part]:
    """Discs; those of the old hold calcifications or gas, and have bony rims, which are not labelled."""
    parts = []
    for number, pose in person.poses.items():
        if number == 1:
            continue
        size = person.sizes[number]
        middle = Pose(pose.to_world([0, 0, -(size.height + size.disc) / 2]), pose.axes)
        whole = Drum(middle, np.array([0.98 * size.width, 0.98 * size.depth, size.disc + 3]))
        parts.append(Part((whole,), 85, texture_hu=8))
        worn = person.chance(0.004 * (person.age - 40))
        if worn:
            hu = person.rng.choice([-300.0, 250.0, 400.0])
            inner = np.array([0.3 * size.width, 0.28 * size.depth, max(0.25 * size.disc, 1.0)])
            parts.append(Part((Ellipsoid(middle, inner),), hu))
    return parts


def cord(person: Person) -> list[Part]:
    """The dural sac with the cord, in the fat of the canal."""
    axis = [
        pose.to_world([0, -(size.depth + size.canal_depth) / 2, 0])
        for (number, pose), size in zip(person.poses.items(), person.sizes.values(), strict=True)
        if number != L6
    ]
    sac = Part(tuple(tube(axis, 6.5 * person.scale, 7.0 * person.scale)), 30)
    return [sac, Part(tuple(tube(axis[5:], 4 * person.scale)), 45)]


def metal(person: Person) -> list[Part]:
    """What some carry in or on them: wires of a sternotomy, a pacemaker, clips, electrodes, cement, screws and rods."""
    rng, at = person.rng, person.at
    solids: list[Solid] = []
    if person.chance(0.08):  # wires around the sternum
        for level in np.linspace(10.5, 15, 6):
            middle = at(level, (0, 74 + 11 * (level - 10), 0))
            solids += tube([shifted(middle, -12, -10, 0), shifted(middle, 0, 6, 0), shifted(middle, 12, -10, 0)], 0.8)
    if person.chance(0.08):  # a pacemaker and its lead
        box = at(10, (-78, 82, 0))
        solids.append(Drum(Pose(box, np.eye(3)), np.array([42.0, 9, 40])))
        solids += tube(
            [box, at(9, (-30, 60, 10)), at(10, (26, 48, 0)), at(15, (30, 66, 0)), at(16.5, (-20, 92, 0))], 1.2
        )
    if person.chance(0.1):  # clips of an operation
        for _ in range(6):
            place = at(rng.uniform(18, 23), (rng.uniform(-60, 60), rng.uniform(30, 80), 0))
            solids += tube([place, place + rng.normal(0, 3, 3)], 0.9)
    if person.chance(0.15):  # electrodes on the chest's skin
        for x, level in ((-90, 10), (90, 10), (-100, 18)):
            place = at(level, (x, 100, 0))
            solids += tube([place, shifted(place, 0.4 * x, 60, 60)], 1.2)
    if person.chance(0.04):
        solids += _fixation(person)
    parts = [Part(tuple(solids), 2800)]
    if person.chance(0.04):
        number = int(rng.choice([number for number in person.poses if 14 <= number <= 24]))
        size = person.sizes[number]
        radii = 0.5 * np.array([size.width, size.depth, size.height]) * rng.uniform(0.3, 0.7, 3)
        parts.append(Part((Ellipsoid(person.poses[number], radii),), 1500, texture_hu=200))
    return parts


def _fixation(person: Person) -> list[Solid]:
    """Screws through the pedicles of two or three neighbours, and a rod on each side."""
    lumbar = [number for number in sorted(person.poses) if 18 <= number <= 24]
    first = int(person.rng.integers(len(lumbar) - 2))
    solids: list[Solid] = []
    for side in (-1, 1):
        heads = []
        for number in lumbar[first : first + 3]:
            pose, size = person.poses[number], person.sizes[number]
            x = side * (size.canal_width + size.pedicle_width) / 2
            upper = 0.5 * size.height - 0.55 * size.pedicle_height
            head = pose.to_world([x + side * 5, -size.depth / 2 - size.canal_depth - 10, upper])
            solids.append(Capsule(pose.to_world([0.6 * x, 0.2 * size.depth, upper - 2]), head, 2.6, 3.4))
            heads.append(head)
        solids += tube(heads, 3)
    return solids
