"""Confidence intervals by the bootstrap: how much a mean over cases owes to which cases were drawn.

Cases are drawn again with replacement, ``RESAMPLES`` times with a fixed seed, and the interval holds the middle 95 % of
the results (the percentile bootstrap; Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13).

It has no answer for fewer than two cases. With few, it is too narrow, as resamples can't show what the cases don't: of
normal values, a nominal 95 % covers the true mean in 83 % of draws of 5 cases, 90 % of 10, and 92 % of 20. Cases of one
patient aren't independent, which it doesn't know either.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 10_000
_SEED = 0


def mean_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float] | None:
    """95 % interval of the mean.

    Args:
        values: (N,) a number for each case, or the difference of two results on it.

    Returns:
        Its ends; None for fewer than two cases.
    """
    return ratio_interval(values, np.ones(len(values)))


def ratio_interval(
    parts: Sequence[float] | np.ndarray, wholes: Sequence[float] | np.ndarray
) -> tuple[float, float] | None:
    """95 % interval of sum of parts / sum of wholes, as of the vertebrae found among those of all cases.

    Args:
        parts: (N,) a number for each case.
        wholes: (N,) what it is a part of; all above 0.

    Returns:
        Its ends; None for fewer than two cases.
    """
    parts, wholes = np.asarray(parts, float), np.asarray(wholes, float)
    if len(parts) < 2:
        return None
    counts = _counts_in_resamples(len(parts))
    low, high = np.quantile((counts @ parts) / (counts @ wholes), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


@lru_cache(maxsize=1)  # metrics come in many columns of the same cases
def _counts_in_resamples(cases: int) -> np.ndarray:
    """How often each case was drawn: (``RESAMPLES``, cases) float64, which multiplies fast; 80 kB a case."""
    drawn = np.random.default_rng(_SEED).integers(cases, size=(RESAMPLES, cases))
    drawn += cases * np.arange(RESAMPLES)[:, None]
    return np.bincount(drawn.reshape(-1), minlength=RESAMPLES * cases).reshape(RESAMPLES, cases).astype(float)
