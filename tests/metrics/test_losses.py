import math

import pytest
import torch
from monai.losses import DiceLoss

from metrics.losses import BCE, MSE, AdaptiveWing, DeepSupervision, Dice, DiceCE, Wing, build_loss
from utils.tasks import SEGMENTATION, TASKS

ALL = [name for task in TASKS.values() for name in task.losses]
SHAPE = (2, 1, 4, 5, 6)


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


@pytest.mark.parametrize("name", ALL)
def test_contract(name):
    """A float32 scalar from any float logits, finite with its gradient, and least at the target."""
    torch.manual_seed(0)
    loss = build_loss(name)
    target = (torch.rand(SHAPE) > 0.7).float()
    for dtype in (torch.float32, torch.bfloat16):
        logits = torch.randn(SHAPE, dtype=dtype, requires_grad=True)
        value = loss(logits, target)
        assert value.dtype == torch.float32 and value.ndim == 0 and torch.isfinite(value)
        value.backward()
        assert torch.isfinite(logits.grad).all() and logits.grad.any()
    right = loss((target * 2 - 1) * 20, target)
    wrong = loss((1 - target * 2) * 20, target)
    assert 0 <= right < 1e-3 < wrong


@pytest.mark.parametrize("name", ALL)
def test_extreme_logits_and_empty_targets_stay_finite(name):
    loss = build_loss(name)
    for target in (torch.zeros(SHAPE), torch.ones(SHAPE)):
        for value in (-1e4, 0.0, 1e4):
            logits = torch.full(SHAPE, value, requires_grad=True)
            result = loss(logits, target)
            result.backward()
            assert torch.isfinite(result) and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", SEGMENTATION.losses)
def test_classes(name):
    loss = build_loss(name)
    torch.manual_seed(0)
    target = torch.randint(0, 3, SHAPE).to(torch.uint8)
    right = torch.nn.functional.one_hot(target[:, 0].long(), 3).movedim(-1, 1) * 40.0 - 20
    assert loss(right, target) < 1e-3 < loss(-right, target)


def test_dice_by_hand():
    logits = torch.tensor([logit(0.8), logit(0.4), logit(0.1)]).reshape(1, 1, 3, 1, 1)
    target = torch.tensor([1.0, 0, 0]).reshape(1, 1, 3, 1, 1)
    assert Dice()(logits, target).item() == pytest.approx(1 - (2 * 0.8 + 0.003) / (1.3 + 1 + 0.003))


@pytest.mark.parametrize("classes", [1, 3])
def test_dice_agrees_with_monai(classes):
    torch.manual_seed(0)
    logits, target = torch.randn(2, classes, 8, 8, 8), torch.randint(0, max(classes, 2), (2, 1, 8, 8, 8))
    smoothing = 1e-3 * 8**3
    options = {"sigmoid": True} if classes == 1 else {"softmax": True, "to_onehot_y": True, "include_background": False}
    theirs = DiceLoss(**options, batch=False, smooth_nr=smoothing, smooth_dr=smoothing)(logits, target)
    torch.testing.assert_close(Dice()(logits, target), theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("classes", [1, 3])
def test_a_batch_costs_the_mean_of_its_items(name, classes, dtype):
    """In value and gradient, whatever the items hold: a batch is a way to compute a step, not another step."""
    if classes > 1 and name not in SEGMENTATION.losses:
        pytest.skip("a heatmap has one channel")
    torch.manual_seed(0)
    loss = build_loss(name)
    shares = torch.tensor([0.0, 0.02, 0.5, 1.0]).reshape(4, 1, 1, 1, 1)  # of foreground: none, little, half, all
    target = ((torch.rand(4, 1, 8, 8, 8) < shares) * max(classes - 1, 1)).to(torch.uint8)
    sizes = [8, 4]
    logits = [(torch.randn(4, classes, n, n, n) * 3).to(dtype).requires_grad_() for n in sizes]

    together = loss(logits, target)
    gradients = torch.autograd.grad(together, logits)
    apart = torch.stack([loss([level[i : i + 1] for level in logits], target[i : i + 1]) for i in range(4)]).mean()
    expected = torch.autograd.grad(apart, logits)
    torch.testing.assert_close(together, apart, rtol=1e-6, atol=0)
    for found, wanted in zip(gradients, expected, strict=True):
        assert wanted.abs().amax(dim=(1, 2, 3, 4)).all()  # each item teaches something
        torch.testing.assert_close(found, wanted, rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-8)


def test_dice_of_a_batch_by_hand():
    """A patch without foreground in which nothing is found, and one of which half is found: 0 and 1 - 2/3."""
    target = torch.zeros(2, 1, 10, 10, 10)
    target[1].flatten()[:400] = 1
    logits = torch.full(target.shape, -50.0)
    logits[1].flatten()[:200] = 50.0
    half = 1 - (2 * 200 + 1) / (200 + 400 + 1)
    assert Dice()(logits, target).item() == pytest.approx((0 + half) / 2)


def test_dice_keeps_large_sums_of_narrow_logits():
    """A patch holds more voxels than fp16 can count."""
    target = torch.ones(1, 1, 48, 48, 48)
    logits = torch.full(target.shape, math.log(3), dtype=torch.float16, requires_grad=True)
    loss = Dice()(logits, target)
    loss.backward()
    assert loss.item() == pytest.approx(1 - (2 * 0.75 + 1e-3) / (0.75 + 1 + 1e-3), abs=1e-3)
    assert torch.isfinite(logits.grad).all()


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
    for loss in (DiceCE(), Dice(), BCE()):
        assert torch.equal(DeepSupervision(loss)(logits, target), loss(logits, target))


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


def test_cross_entropy_of_several_heatmaps_is_that_of_a_mean_over_their_sum():
    """One heatmap of 80 voxels of 1 in 480 and one that is empty: ln 3 in each voxel, over 80."""
    target = torch.zeros(1, 3, 8, 6, 10)
    target[:, 1, :4, :4, :5] = 1
    target[:, 0] = 1 - target[:, 1]
    loss = build_loss("HeatmapCE")
    assert loss(torch.zeros(1, 3, 8, 6, 10), target).item() == pytest.approx(480 * math.log(3) / 80)
    assert loss(torch.cat([torch.zeros(1, 3, 8, 6, 10)] * 2), torch.cat([target] * 2)).item() == pytest.approx(
        480 * math.log(3) / 80
    )
    nothing = torch.zeros_like(target)
    nothing[:, 0] = 1
    assert loss(torch.zeros(1, 3, 8, 6, 10), nothing).item() == pytest.approx(480 * math.log(3) / 50)
