"""Scores of a network in training, on patches and on whole scans of the validation split."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from dataloader import h5VerSe
from networks.network import Network
from training.steps.batches import Loader, batches_of, case_of
from training.steps.ranks import Ranks
from training.steps.step_plan import StepPlan
from training.tasks.task import TrainingTask
from verse_utils.errors import UserError


class PatchScores(NamedTuple):
    """Validation on patches.

    Attributes:
        loss: mean over the patches.
        score: over all patches; higher is better.
        further: columns of the history that tell more.
        left_out: places of patches whose loss is not finite; they don't count.
    """

    loss: float
    score: float
    further: dict[str, float | str]
    left_out: list[str]


@torch.inference_mode()
def validate_patches(
    task: TrainingTask, network: nn.Module, batches: Loader, plan: StepPlan, ranks: Ranks, between: Callable[[], None]
) -> PatchScores:
    """Loss and score of the validation patches, which are the same in every epoch.

    Args:
        task: loss and score.
        network: on its device.
        batches: of this process.
        plan: how a forward pass is computed.
        ranks: the processes over which scores are summed up.
        between: called after each batch; it may raise.

    Raises:
        UserError: no patch has a finite loss.
    """
    network.eval()
    device = plan.device.torch_device
    loss_sum, count, left_out = 0.0, 0, []
    terms = np.zeros(())
    for batch in batches_of(batches):
        with plan.device.autocast():
            logits = network(batch.image.to(device)).float()
        targets = batch.target.to(device)
        of_ones = zip(logits.split(1), targets.split(1), batch.places, batch.spacings_mm, strict=True)
        for logits_of_one, target, place, spacing_mm in of_ones:
            loss = task.loss(logits_of_one, target).item()
            if math.isfinite(loss):
                loss_sum, count = loss_sum + loss, count + 1
                terms = terms + task.score_terms(logits_of_one, target, spacing_mm)
            else:
                left_out.append(case_of(place))
        between()
    parts = ranks.gather((loss_sum, count, terms, left_out))
    loss_sum, count = sum(part[0] for part in parts), sum(part[1] for part in parts)
    left_out = [place for part in parts for place in part[3]]
    if not count:
        where = ", ".join(sorted(set(left_out)))
        raise UserError(f"no validation patch has a finite loss: {where}; check these cases, or lower --lr")
    terms = sum(part[2] for part in parts)
    return PatchScores(loss_sum / count, task.score(terms), task.further_scores(terms), left_out)


def validate_whole_scans(
    task: TrainingTask,
    network: Network,
    dataset: h5VerSe,
    plan: StepPlan,
    ranks: Ranks,
    between: Callable[[], None],
) -> tuple[float, list[str]]:
    """Mean score of the validation scans, which are predicted whole, by the same windows as in the test.

    Args:
        task: score of a scan.
        network: on its device.
        dataset: of whole validation scans.
        plan: how a forward pass is computed.
        ranks: the processes among which scans are divided.
        between: called after each scan; it may raise.

    Returns:
        The mean over the scans, and the cases whose probabilities are not finite; they don't count.

    Raises:
        UserError: no scan has finite probabilities.
    """
    scores, left_out = [], []
    own = range(ranks.rank, len(dataset), ranks.count)
    for index in tqdm(own, desc="validate", unit="case", leave=False, disable=None if ranks.is_writer else True):
        subject = dataset[index]
        probabilities_KXYZ = task.predict(network, subject, plan)
        if torch.isfinite(probabilities_KXYZ).all():
            scores.append(task.scan_score(subject, task.clean(probabilities_KXYZ, subject["image"].spacing)))
        else:
            left_out.append(subject["case_id"])
        between()
    parts = ranks.gather((scores, left_out))
    scores, left_out = ([value for part in parts for value in part[which]] for which in (0, 1))
    if not scores:
        where = ", ".join(left_out)
        raise UserError(f"the network's output for {where} is not finite; check these scans, or lower --lr")
    return float(np.mean(scores)), left_out
