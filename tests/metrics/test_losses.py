import math

import pytest
import torch
from monai.losses import DiceLoss

from metrics.losses import BCE, HEATMAP_LOSSES, MASK_LOSSES, MSE, AdaptiveWing, DeepSupervision, Dice, Wing

ALL = [*HEATMAP_LOSSES.items(), *MASK_LOSSES.items()]
SHAPE = (2, 1, 4, 5, 6)


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


@pytest.mark.parametrize(("name", "loss"), ALL)
def test_contract(name, loss):
    """A float32 scalar from any float logits, finite with its gradient, and least at the target."""
    torch.manual_seed(0)
    target = (torch.rand(SHAPE) > 0.7).float()
    for dtype in (torch.float32, torch.bfloat16):
        logits = torch.randn(SHAPE, dtype=dtype, requires_grad=True)
        value = loss()(logits, target)
        assert value.dtype == torch.float32 and value.ndim == 0 and torch.isfinite(value)
        value.backward()
        assert torch.isfinite(logits.grad).all() and logits.grad.any()
    right = loss()((target * 2 - 1) * 20, target)
    wrong = loss()((1 - target * 2) * 20, target)
    assert 0 <= right < 1e-3 < wrong


@pytest.mark.parametrize(("name", "loss"), ALL)
def test_extreme_logits_and_empty_targets_stay_finite(name, loss):
    for target in (torch.zeros(SHAPE), torch.ones(SHAPE)):
        for value in (-1e4, 0.0, 1e4):
            logits = torch.full(SHAPE, value, requires_grad=True)
            result = loss()(logits, target)
            result.backward()
            assert torch.isfinite(result) and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(("name", "loss"), MASK_LOSSES.items())
def test_classes(name, loss):
    torch.manual_seed(0)
    target = torch.randint(0, 3, SHAPE).to(torch.uint8)
    right = torch.nn.functional.one_hot(target[:, 0].long(), 3).movedim(-1, 1) * 40.0 - 20
    assert loss()(right, target) < 1e-3 < loss()(-right, target)


def test_dice_by_hand():
    logits = torch.tensor([logit(0.8), logit(0.4), logit(0.1)]).reshape(1, 1, 3, 1, 1)
    target = torch.tensor([1.0, 0, 0]).reshape(1, 1, 3, 1, 1)
    assert Dice()(logits, target).item() == pytest.approx(1 - (2 * 0.8 + 0.003) / (1.3 + 1 + 0.003))


def test_dice_agrees_with_monai():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 1, 8, 8, 8), (torch.rand(2, 1, 8, 8, 8) > 0.6).float()
    smoothing = 1e-3 * target.numel()
    theirs = DiceLoss(sigmoid=True, batch=True, smooth_nr=smoothing, smooth_dr=smoothing)(logits, target)
    torch.testing.assert_close(Dice()(logits, target), theirs)


def test_wing_by_hand():
    loss = Wing(width=0.1, curvature=0.02)
    small, large = torch.tensor([[[[[logit(0.55)]]]]]), torch.tensor([[[[[logit(0.9)]]]]])
    target = torch.tensor([[[[[0.5]]]]])
    assert loss(small, target).item() == pytest.approx(0.1 * math.log(1 + 0.05 / 0.02), rel=1e-4)
    assert loss(large, target).item() == pytest.approx(0.4 - (0.1 - 0.1 * math.log(1 + 5)), rel=1e-4)


def test_adaptive_wing_by_hand():
    loss = AdaptiveWing()
    target = torch.tensor([[[[[0.2]]]]])
    small = loss(torch.tensor([[[[[logit(0.5)]]]]]), target).item()
    assert small == pytest.approx(14 * math.log(1 + 0.3**1.9), rel=1e-4)
    power = 2.1 - 0.2
    slope = 14 * (1 / (1 + 0.5**power)) * power * 0.5 ** (power - 1)
    offset = 0.5 * slope - 14 * math.log(1 + 0.5**power)
    large = loss(torch.tensor([[[[[logit(0.9)]]]]]), target).item()
    assert large == pytest.approx(slope * 0.7 - offset, rel=1e-4)


@pytest.mark.parametrize(("loss", "turn"), [(Wing(), 0.1), (AdaptiveWing(), 0.5)])
def test_both_branches_meet(loss, turn):
    target = torch.tensor([[[[[0.2]]]]])
    below, above = (loss(torch.tensor([[[[[logit(0.2 + turn + step)]]]]]), target) for step in (-1e-4, 1e-4))
    assert abs(above - below) < 5e-3


def test_dice_of_an_empty_patch_grows_with_what_is_false():
    target = torch.zeros(1, 1, 20, 20, 20)
    values = []
    for false in (0, 8, 80, 800):
        logits = torch.full(target.shape, -50.0)
        logits.flatten()[:false] = 50.0
        values.append(Dice()(logits, target).item())
    assert values == pytest.approx([0, 0.5, 10 / 11, 100 / 101], abs=1e-6)


def test_deep_supervision_of_one_level_is_the_loss():
    logits, target = torch.randn(1, 1, 4, 4, 4), torch.randint(0, 2, (1, 1, 4, 4, 4)).to(torch.uint8)
    for loss in MASK_LOSSES.values():
        assert torch.equal(DeepSupervision(loss())(logits, target), loss()(logits, target))


def test_deep_supervision_by_hand():
    """Weights 1, 1/2, 1/4 over 1.75; a mask's voxels are picked, a heatmap's are averaged."""
    levels = [torch.full((1, 1, size, size, size), logit(p)) for size, p in ((4, 0.9), (2, 0.6), (1, 0.5))]
    mask = torch.ones(1, 1, 4, 4, 4, dtype=torch.uint8)
    expected = (-math.log(0.9) - 0.5 * math.log(0.6) - 0.25 * math.log(0.5)) / 1.75
    assert DeepSupervision(BCE())(levels, mask).item() == pytest.approx(expected, rel=1e-5)

    heatmap = torch.zeros(1, 1, 4, 4, 4)
    heatmap[..., :2] = 1
    finest = (0.1**2 + 0.9**2) / 2
    middle = (0.4**2 + 0.6**2) / 2
    expected = (finest + 0.5 * middle + 0.25 * 0) / 1.75  # the coarsest voxel's mean is 0.5
    assert DeepSupervision(MSE())(levels, heatmap).item() == pytest.approx(expected, rel=1e-5)
