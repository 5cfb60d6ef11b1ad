"""How scans are segmented: the options, their defaults, and nothing heavy, so that ``--help`` answers at once."""

from __future__ import annotations

from dataclasses import dataclass

# Which connected components of the mask are kept: those of 5 cm³ and more that form one spinal column, all of 5 cm³ and
# more, the largest alone, or all.
POSTPROCESSING = ("column", "blobs", "largest", "none")

# What the mask tells apart: the segmenter's own classes, or each vertebra by the names of the localiser.
LABELS = ("segmenter", "vertebrae")


@dataclass(frozen=True)
class Options:
    """How a scan is segmented; the fields are arguments of ``inference.py``.

    Attributes:
        margin_mm: kept around the spine that the localiser found. Its view is coarse, and it may miss the ends of the
            spine and of processes.
        overlap: smallest share of a window's side that its neighbour covers, 0 to below 1.
        batch_size: windows in a forward pass.
        tta: average the prediction with that of the mirrored image (test-time augmentation).
        postprocess: one of ``POSTPROCESSING``.
        probabilities: return the probability of foreground, too.
        labels: one of ``LABELS``.
    """

    margin_mm: float = 10.0
    overlap: float = 0.5
    batch_size: int = 1
    tta: bool = False
    postprocess: str = "column"
    probabilities: bool = False
    labels: str = "segmenter"
