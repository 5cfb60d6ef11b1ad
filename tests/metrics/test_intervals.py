import warnings

import numpy as np
import pytest

from metrics.intervals import RESAMPLES, mean_interval, mean_intervals, ratio_interval

CASES = np.random.default_rng(4).gamma(2.0, size=30)
SIZES = np.arange(1.0, 31)


def percentiles_by_hand(parts, wholes):
    """The middle 95 % of the ratios, of cases drawn by the same generator."""
    drawn = np.random.default_rng(0).integers(len(parts), size=(RESAMPLES, len(parts)))
    return tuple(np.quantile(parts[drawn].sum(axis=1) / wholes[drawn].sum(axis=1), [0.025, 0.975]))


def test_percentiles_by_hand():
    assert mean_interval(CASES, "percentile") == pytest.approx(percentiles_by_hand(CASES, np.ones(30)), rel=1e-9)
    ratio = ratio_interval(CASES * SIZES, SIZES, "percentile")
    assert ratio == pytest.approx(percentiles_by_hand(CASES * SIZES, SIZES), rel=1e-9)


def test_bca_follows_the_skew():
    """A long tail upward: both ends lie higher than those of the percentiles; of symmetric values none moves."""
    for bca, percentile in (
        (mean_interval(CASES), mean_interval(CASES, "percentile")),
        (ratio_interval(CASES * SIZES, SIZES), ratio_interval(CASES * SIZES, SIZES, "percentile")),
    ):
        assert bca[0] > percentile[0] and bca[1] > percentile[1]
    symmetric = [-3.0, -1, 0, 1, 3]
    assert mean_interval(symmetric) == pytest.approx(mean_interval(symmetric, "percentile"), abs=0.1)


def test_two_cases_by_hand():
    """A quarter of the resamples is (0, 0), a quarter (1, 1): more than the 2.5 % left out, so the ends are 0 and 1."""
    assert mean_interval([0.0, 1.0]) == (0, 1)


def test_equal_values_for_which_bca_has_no_answer():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mean_interval([0.5, 0.5]) == mean_interval([0.5] * 8) == (0.5, 0.5)
        assert ratio_interval([0, 0, 0], [2, 3, 4]) == (0, 0)


@pytest.mark.parametrize("values", [[], [0.7]])
def test_fewer_than_two_cases_have_none(values):
    assert mean_interval(values) is None and ratio_interval(values, values) is None


def test_the_same_cases_give_the_same_interval():
    state = np.random.get_state()[1].tolist()
    assert mean_interval(CASES) == mean_interval(CASES.copy())
    assert np.random.get_state()[1].tolist() == state


def test_columns_together_are_as_each_alone(monkeypatch):
    columns = [CASES, CASES[:7], -CASES, [1.0], [0.5] * 30]
    alone = [mean_interval(column) for column in columns]
    monkeypatch.setattr("metrics.intervals._BATCH_VALUES", 12_345)  # drawn in other batches, too
    for one, other in zip(mean_intervals(columns), alone, strict=True):
        assert one == (other and pytest.approx(other, rel=1e-12))


def test_pairs_see_a_difference_that_is_smaller_than_the_spread():
    better = CASES + np.random.default_rng(5).normal(0.1, 0.05, 30)
    low, high = mean_interval(better - CASES)
    assert 0.05 < low < 0.1 < high < 0.15
    assert mean_interval(better)[0] < CASES.mean() < mean_interval(better)[1]
