from pathlib import Path

import numpy as np
import pytest
import torch

from training.settings import TrainingSettings
from training.tasks import build_task
from utils.tasks import HEATMAP, SEGMENTATION

VOXELS = 4 * 4 * 4


def task_of(kind, **arguments):
    settings = TrainingSettings(kind, (Path("a.h5"),), "run", input_shape=(4, 4, 4), loss=kind.losses[0], **arguments)
    return build_task(settings)


def mask(*voxels_of_classes):
    """A patch (1, 1, 4, 4, 4) in which class 1 has the first voxels, class 2 the next, and so on."""
    patch = torch.zeros(VOXELS, dtype=torch.uint8)
    start = 0
    for index, count in enumerate(voxels_of_classes, start=1):
        patch[start : start + count] = index
        start += count
    return patch.reshape(1, 1, 4, 4, 4)


def logits_of(prediction, classes):
    """Logits that say a mask."""
    if classes == 1:
        return prediction.float() * 20 - 10
    return torch.nn.functional.one_hot(prediction[:, 0].long(), classes).movedim(-1, 1) * 20.0


def dice(task, *pairs):
    """The validation score of pairs of predicted and reference mask, each a batch."""
    terms = [task.score_terms(logits_of(prediction, task.out_channels), reference) for prediction, reference in pairs]
    return task.score(np.sum(terms, axis=0))


def test_dice_is_that_of_all_patches_together():
    """20 and 30 voxels share 10 in the first patch, 10 and 5 share 5 in the second."""
    task = task_of(SEGMENTATION)
    later = mask(30).flatten().roll(10).reshape(1, 1, 4, 4, 4)  # voxels 10 to 39
    first, second = (mask(20), later), (mask(10), mask(5))
    assert dice(task, first, second) == pytest.approx(2 * (10 + 5) / (20 + 30 + 10 + 5))
    batch = tuple(torch.cat(pair) for pair in zip(first, second, strict=True))
    assert dice(task, batch) == dice(task, first, second)


@pytest.mark.parametrize("labels", ["binary", "regions"])
def test_a_patch_without_foreground_adds_only_what_is_false(labels):
    task = task_of(SEGMENTATION, labels=labels)
    half = mask(10), mask(20)
    nothing, false = (mask(), mask()), (mask(30), mask())
    assert dice(task, half) == dice(task, half, nothing, nothing) == pytest.approx(2 * 10 / 30)
    assert dice(task, half, false) == pytest.approx(2 * 10 / (30 + 30))
    assert dice(task, (mask(), mask(20)), nothing) == 0


@pytest.mark.parametrize("labels", ["binary", "regions"])
def test_finding_nothing_where_nothing_is_scores_no_perfect_dice(labels):
    """Else it would be the best epoch for ever."""
    task = task_of(SEGMENTATION, labels=labels)
    for prediction in (mask(), mask(30)):
        with pytest.warns(UserWarning, match="no validation patch holds foreground: .* raise --bone_share"):
            assert dice(task, (prediction, mask())) == 0


def test_dice_of_several_classes_is_the_mean_over_those_that_occur():
    """Class 1: 10 of 10 and 20. Class 2: found where there is none. Class 3: nowhere."""
    task = task_of(SEGMENTATION, labels="regions")
    assert task.out_channels == 4
    assert dice(task, (mask(10, 5), mask(20))) == pytest.approx((2 * 10 / 30 + 0) / 2)
    assert dice(task, (mask(10), mask(20))) == pytest.approx(2 * 10 / 30)


def r2(task, *pairs):
    terms = [task.score_terms(torch.special.logit(prediction), target) for prediction, target in pairs]
    return task.score(np.sum(terms, axis=0))


def test_r2_is_that_of_all_views_together():
    torch.manual_seed(0)
    predictions, targets = torch.rand(2, 3, 1, 4, 4, 4) * 0.8 + 0.1
    residual, variation = (predictions - targets).square().sum(), (targets - targets.mean()).square().sum()
    task = task_of(HEATMAP)
    pairs = [(predictions[:1], targets[:1]), (predictions[1:], targets[1:])]
    assert r2(task, *pairs) == pytest.approx(1 - float(residual / variation), rel=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_no_view_with_a_spine_scores_no_perfect_r2(value):
    target = torch.full((1, 1, 4, 4, 4), value)
    with pytest.warns(UserWarning, match="no validation view shows a spine: the score is 0"):
        assert r2(task_of(HEATMAP), (target, target)) == 0
