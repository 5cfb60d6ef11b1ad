"""Sizes of vertebrae by level.

Near the means of Panjabi et al., Spine 1991;16(8):861-869 (cervical) and 888-901 (thoracic), Spine 1992;17(3):299-306
(lumbar): mean of both end plates' widths and depths, canal, pedicles, distance of the transverse processes' tips. Only
lumbar widths and the canals from T11 down were compared with published tables, number by number; the others are close,
not exact. Heights of lumbar bodies and canal depths lie between Panjabi's and the pooled ones of Bonczar et al., Surg
Radiol Anat 2024;47(1):22, as dry bones measure less than CT. The rest (disc, processes, facets, tilt) is set by eye, so
that the volumes of whole vertebrae are those of VerSe's masks; docs/data.md compares them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from verse_utils.labels import L6, T13


@dataclass(frozen=True)
class VertebraSize:
    """One level's sizes in mm (angles in degrees).

    Attributes:
        width: of the body, left to right.
        depth: of the body, front to back.
        height: of the body.
        disc: thickness of the disc below.
        canal_width: of the vertebral canal.
        canal_depth: of the vertebral canal.
        pedicle_width: across.
        pedicle_height: up and down.
        transverse: from tip to tip of the transverse processes.
        spinous: length of the spinous process behind the laminae.
        spinous_slope_deg: how far it points down.
        spinous_height: up and down, at its tip.
        lamina_height: up and down.
        lamina_thickness: across.
        facet_x: distance of the upper articular processes from the midline.
        tilt_deg: forward tilt of the body, which gives lordosis and kyphosis.
    """

    width: float
    depth: float
    height: float
    disc: float
    canal_width: float
    canal_depth: float
    pedicle_width: float
    pedicle_height: float
    transverse: float
    spinous: float
    spinous_slope_deg: float
    spinous_height: float
    lamina_height: float
    lamina_thickness: float
    facet_x: float
    tilt_deg: float

    def scaled(self, factor: float) -> VertebraSize:
        """The same shape, ``factor`` times as large."""
        lengths = [field.name for field in fields(self) if not field.name.endswith("_deg")]
        return replace(self, **{name: factor * getattr(self, name) for name in lengths})


# VerSe's number -> a row in the order of VertebraSize.
_ROWS: dict[int, tuple[float, ...]] = {
    # wid   dep   hei  disc canw  cand  pedw  pedh trans spin slope spinh lamh lamt facx  tilt
    1: (17.3, 15.3, 14.0, 4.0, 26.0, 20.0, 8.0, 8.0, 78, 8, 10, 8, 10, 6.8, 20.0, -2),  # C1
    2: (17.9, 15.9, 17.0, 5.0, 24.5, 19.0, 8.0, 8.0, 54, 17, 12, 13, 13, 5.8, 19.0, 0),
    3: (16.8, 15.6, 13.5, 5.0, 22.9, 16.2, 5.6, 7.4, 52, 13, 15, 7, 12, 4.8, 20.0, 2),
    4: (17.4, 15.8, 13.0, 5.0, 24.7, 16.5, 5.5, 7.4, 51, 13, 17, 7, 12, 4.8, 20.5, 7),
    5: (18.9, 16.9, 12.8, 5.2, 24.9, 16.5, 5.6, 7.0, 52, 14, 19, 7, 12, 4.8, 21.0, 11),
    6: (20.7, 17.9, 13.0, 5.5, 25.8, 16.5, 6.0, 7.3, 54, 19, 20, 8, 13, 5.0, 21.5, 16),
    7: (23.1, 17.9, 14.8, 5.0, 24.5, 15.2, 6.6, 7.5, 68, 30, 20, 9, 15, 5.8, 21.0, 20),
    8: (27.0, 19.7, 16.5, 4.5, 21.8, 16.4, 8.5, 9.6, 76, 31, 24, 10, 18, 7.1, 17.0, 25),  # T1
    9: (27.0, 21.2, 17.5, 4.0, 19.5, 15.7, 8.2, 11.4, 70, 32, 30, 10, 19, 7.3, 14.5, 21),
    10: (26.4, 23.7, 18.0, 3.6, 18.3, 15.8, 6.8, 11.9, 63, 32, 38, 10, 19, 7.3, 13.5, 17),
    11: (26.6, 24.6, 18.4, 3.6, 17.0, 16.2, 6.3, 11.9, 60, 32, 46, 10, 19, 7.3, 13.0, 12),
    12: (27.2, 25.9, 18.8, 3.8, 17.3, 16.4, 6.0, 12.0, 60, 33, 54, 10, 20, 7.5, 13.0, 7),
    13: (28.4, 27.3, 19.4, 4.0, 17.3, 16.3, 6.0, 11.9, 61, 33, 58, 10, 20, 7.5, 13.0, 2),
    14: (29.8, 28.8, 20.0, 4.3, 17.3, 16.1, 6.2, 12.4, 61, 33, 58, 10, 20, 7.7, 13.0, -1),
    15: (31.3, 29.6, 20.6, 4.6, 17.7, 15.8, 6.7, 12.5, 60, 32, 52, 11, 21, 7.7, 13.0, -3),
    16: (33.2, 31.1, 21.4, 5.0, 17.9, 15.7, 7.7, 13.9, 60, 29, 44, 12, 21, 7.9, 13.5, -6),
    17: (35.2, 32.0, 22.5, 5.3, 18.2, 15.5, 9.0, 14.9, 58, 27, 32, 14, 22, 8.1, 13.5, -9),
    18: (38.3, 32.9, 23.6, 5.6, 19.4, 16.0, 9.7, 16.5, 52, 25, 20, 17, 23, 8.3, 13.5, -11),
    19: (41.8, 34.1, 25.0, 6.3, 22.0, 17.2, 8.8, 16.5, 48, 25, 12, 19, 24, 8.8, 14.5, -14),  # T12
    20: (43.6, 35.7, 26.0, 7.2, 23.0, 17.4, 8.7, 16.0, 71, 27, 9, 21, 24, 9.0, 16.5, -12),  # L1
    21: (45.4, 35.9, 26.8, 8.3, 23.2, 16.6, 8.8, 15.4, 77, 28, 8, 22, 24, 9.2, 17.5, -7),
    22: (47.5, 36.3, 27.0, 9.2, 23.8, 16.1, 10.2, 15.0, 86, 28, 8, 23, 23, 9.4, 19.0, 1),
    23: (49.5, 36.3, 26.8, 9.8, 24.8, 16.8, 13.0, 15.5, 82, 26, 8, 22, 22, 9.6, 21.5, 12),
    24: (50.5, 35.8, 26.5, 9.2, 27.0, 17.7, 16.5, 18.5, 92, 20, 10, 17, 20, 9.4, 25.0, 25),
}


def mean_size(number: int) -> VertebraSize:
    """The sizes of a level (VerSe's number); T13 is built as T12, L6 as L5."""
    return VertebraSize(*_ROWS[{T13: 19, L6: 24}.get(number, number)])


def draw_size(number: int, scale: float, disc_share: float, rng: np.random.Generator) -> VertebraSize:
    """A level's sizes in one body: ``scale`` of the whole body, and each vertebra's own few per cent.

    Args:
        number: VerSe's.
        scale: 1 is the mean adult.
        disc_share: 1 is a young disc, less a flattened one.
        rng: draws what is each vertebra's own.
    """
    size = mean_size(number).scaled(scale)
    names = [field.name for field in fields(size) if not field.name.endswith("_deg")]
    own = dict(zip(names, rng.normal(1, 0.025, len(names)).clip(0.94, 1.06), strict=True))
    own["disc"] *= disc_share
    size = replace(size, **{name: share * getattr(size, name) for name, share in own.items()})
    slope = size.spinous_slope_deg + rng.normal(0, 4)
    return replace(size, spinous_slope_deg=slope)
