import numpy as np
import pytest
from scipy.stats import bootstrap

from utils.intervals import mean_interval, ratio_interval

CASES = np.random.default_rng(4).gamma(2.0, size=30)


def test_the_interval_of_a_mean_is_scipys():
    theirs = bootstrap((CASES,), np.mean, method="percentile", n_resamples=20_000, rng=7).confidence_interval
    width = theirs.high - theirs.low
    assert mean_interval(CASES) == pytest.approx((theirs.low, theirs.high), abs=0.03 * width)


def test_two_cases_by_hand():
    """A quarter of the resamples is (0, 0), a quarter (1, 1): more than the 2.5 % left out, so the ends are 0 and 1."""
    assert mean_interval([0.0, 1.0]) == (0, 1)
    assert mean_interval([0.5, 0.5]) == (0.5, 0.5)


@pytest.mark.parametrize("values", [[], [0.7]])
def test_fewer_than_two_cases_have_none(values):
    assert mean_interval(values) is None


def test_the_same_cases_give_the_same_interval():
    state = np.random.get_state()[1].tolist()
    assert mean_interval(CASES) == mean_interval(CASES.copy())
    assert np.random.get_state()[1].tolist() == state


def test_pairs_see_a_difference_that_is_smaller_than_the_spread():
    better = CASES + np.random.default_rng(5).normal(0.1, 0.05, 30)
    low, high = mean_interval(better - CASES)
    assert 0.05 < low < 0.1 < high < 0.15
    assert mean_interval(better)[0] < CASES.mean() < mean_interval(better)[1]


def test_a_ratio_weighs_each_case_by_its_size():
    sizes = np.arange(1, 31)
    theirs = bootstrap(
        (CASES * sizes, sizes),
        lambda parts, wholes, axis: parts.sum(axis) / wholes.sum(axis),
        method="percentile",
        paired=True,
        n_resamples=20_000,
        rng=7,
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ratio_interval(CASES * sizes, sizes) == pytest.approx((theirs.low, theirs.high), abs=0.03 * width)
