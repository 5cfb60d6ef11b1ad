"""How vertebrae are stacked on the sacrum: lordosis, kyphosis and scoliosis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verse_utils.phantom.shapes import Pose, rotation


@dataclass(frozen=True)
class Link:
    """A vertebra's share of the spine's length: its disc (below), its height, and its forward tilt."""

    disc_mm: float
    height_mm: float
    tilt_deg: float


@dataclass(frozen=True)
class Curves:
    """How a spine is bent: lordosis and kyphosis as a multiple of the tilts, scoliosis as a wave along the spine."""

    curvature: float
    scoliosis_deg: float
    wave_mm: float
    phase: float


def draw_curves(rng: np.random.Generator) -> Curves:
    """Draw a spine's curves; in three of ten scoliosis is plain to see."""
    curvature = rng.uniform(0.5, 1.3)
    scoliosis_deg = rng.choice([rng.uniform(0, 4), rng.uniform(6, 16)], p=[0.7, 0.3])
    return Curves(curvature, scoliosis_deg, rng.uniform(180, 320), rng.uniform(0, 2 * np.pi))


def stack(links: dict[int, Link], curves: Curves) -> dict[int, Pose]:
    """Stack vertebrae, the lowest first, on the sacrum: label -> frame at the centre of its body."""
    top = np.zeros(3)  # upper end plate of what lies below
    arc_mm = 0.0
    poses = {}
    for label, link in links.items():
        height = link.disc_mm + link.height_mm
        forward = np.deg2rad(curves.curvature * link.tilt_deg)
        middle = arc_mm + height / 2
        sideways = np.deg2rad(curves.scoliosis_deg) * np.sin(2 * np.pi * middle / curves.wave_mm + curves.phase)
        turn = -0.6 * sideways  # vertebral bodies rotate towards the convex side
        axes = rotation(2, turn) @ rotation(1, sideways) @ rotation(0, -forward)
        poses[label] = Pose(top + axes[:, 2] * (link.disc_mm + link.height_mm / 2), axes)
        top = top + axes[:, 2] * height
        arc_mm += height
    return poses
