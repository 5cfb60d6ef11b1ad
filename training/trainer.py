"""The training of a network: steps, epochs, validation, and what is written after each."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from typing import Any, cast

import torch
import torchio as tio
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from dataloader import h5VerSe
from networks.network import Network
from prediction.checkpoints import NetworkSpec, describe_input, save_checkpoint
from training.run.interruption import Interruption
from training.run.state import Best, Progress, is_best_written, load_last, save_last
from training.run.tracking import Tracker
from training.settings import TrainingSettings
from training.steps.averaging import average_weights
from training.steps.batches import Batch, PatchOrder, batches_of, end_workers, load_batches
from training.steps.optimizer import build_optimizer, prodigy_estimate, set_learning_rate, used_learning_rate
from training.steps.ranks import Ranks
from training.steps.step_plan import StepPlan
from training.tasks.task import TrainingTask
from training.validation import validate_patches, validate_whole_scans
from utils.intensity import DEFAULT_SCALING
from utils.misc import Stopped
from utils.visualize import save_figure
from verse_utils.errors import UserError
from verse_utils.files.writing import write_csv

# Steps in a row without a finite loss and gradient that end a run: it won't recover.
MOST_BAD_STEPS = 10


class Trainer:
    """Trains a network for a task, from where the run's folder says that it stopped.

    Args:
        task: loss, scores and pictures.
        spec: the network's building plan.
        network: on its device.
        datasets: "training" and "validation" in patches, and "whole" validation scans.
        settings: of the run.
        plan: how a step is computed.
        ranks: this process among those of the run.
        interruption: says whether a signal asked to stop.

    Attributes:
        average: the network that is validated, tested and saved for inference. Its weights are a moving average of the
            trained ones; without averaging, it is the trained network itself.
        progress: how far training has come.
        best: the network of the best epoch.
    """

    def __init__(
        self,
        task: TrainingTask,
        spec: NetworkSpec,
        network: Network,
        datasets: dict[str, h5VerSe],
        settings: TrainingSettings,
        plan: StepPlan,
        ranks: Ranks,
        interruption: Interruption,
    ) -> None:
        self.task, self.spec, self.network, self.datasets = task, spec, network, datasets
        self.settings, self.plan, self.ranks, self.interruption = settings, plan, ranks, interruption
        self.device = plan.device.torch_device
        self.progress, self.best = Progress(), Best()
        self.optimizer = build_optimizer(network, settings)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=plan.device.precision == "fp16")
        self.averaged: AveragedModel | None = average_weights(network, settings.ema) if settings.ema else None
        self.average = network if self.averaged is None else cast(Network, self.averaged.module)
        self.parallel: nn.Module = network
        self.order = PatchOrder(len(datasets["training"]), plan.batch_size, settings.seed, ranks.rank, ranks.count)
        self.train_batches = load_batches(datasets["training"], task.target_key, settings.workers, self.order)
        own = range(ranks.rank, len(datasets["validation"]), ranks.count)
        validation_order = [list(own[first : first + plan.batch_size]) for first in range(0, len(own), plan.batch_size)]
        workers = min(settings.workers, len(own))
        self.validation_batches = load_batches(datasets["validation"], task.target_key, workers, validation_order)
        self.shown = _subject_to_show(task, datasets["validation"]) if ranks.is_writer else None
        # Inference reads from the checkpoint how its input has to be preprocessed.
        grid = datasets["training"].store.settings
        self.network_input = describe_input(DEFAULT_SCALING, settings.task.overhang_vox, grid)
        self.network_input |= task.learn(datasets["training"])
        self.saved_at = time.monotonic()

    def fit(self, tracker: Tracker | None) -> None:
        """Train until all epochs are done or the validation score no longer rises.

        After each epoch the history, a picture and, if the epoch is the best so far, the best checkpoint are written.
        The last checkpoint is written after them, and while an epoch goes on too. A run that was killed continues from
        it, repeats what came after it, and ends as if nothing had happened.

        Raises:
            UserError: ``MOST_BAD_STEPS`` in a row had no finite loss or gradient, or something can't be written.
            Stopped: a signal asked for it; the last checkpoint was written.
        """
        with self._in_parallel():
            self._continue()
            while not self.progress.is_over(self.settings):
                self._train_epoch()
                self._finish_epoch()
                self._write_epoch(tracker)
                self._stop_if_asked()
            self.interruption.may_wait = False
        if self.best.epoch == 0:  # --epochs or early stopping was lowered before the first validation on whole scans
            self._choose(-math.inf, "")
            if self.ranks.is_writer:
                self._write_best()

    @contextmanager
    def _in_parallel(self) -> Iterator[None]:
        """In it, processes of one run exchange their gradients.

        It has to end before the processes part: DistributedDataParallel holds on to their group, and torch 2 can
        deadlock where it is the last to do so: it waits for Gloo's threads, and keeps the lock that they wait for.
        """
        if self.ranks.count > 1:
            devices = [self.device] if self.device.type == "cuda" else None
            self.parallel = DistributedDataParallel(self.network, devices)
        try:
            yield
        finally:
            self.parallel = self.network

    def _continue(self) -> None:
        """Take up the run where its last checkpoint says, and make its files those of that moment."""
        found = load_last(self.spec, self.network, self.parts, self.settings, self.ranks)
        if found is not None:
            self.progress, self.best = found
            if self.ranks.is_writer:  # a run that was killed may lack these, or have later ones
                run = self.settings.run_folder
                write_csv(run.history, self.progress.history)
                if not is_best_written(run, self.best, self.spec, self.task.task):
                    self._write_best()
        if self.ranks.is_writer and not self.progress.is_over(self.settings):
            self.settings.run_folder.test_metrics.unlink(missing_ok=True)  # of an earlier end of this run
        self.interruption.may_wait = True

    def _write_epoch(self, tracker: Tracker | None) -> None:
        """Write what an epoch leaves, the last checkpoint after all else."""
        if self.ranks.is_writer:
            if self.best.epoch == self.progress.epoch:
                self._write_best()
            write_csv(self.settings.run_folder.history, self.progress.history)
            self._draw()
        if tracker is not None:
            tracker.log(self.progress)
        self.save()

    def end_workers(self) -> None:
        """End the processes that prepare patches."""
        end_workers(self.train_batches)
        end_workers(self.validation_batches)

    @property
    def parts(self) -> dict[str, Any]:
        """What the last checkpoint holds besides weights and progress, by its key there."""
        averaged = {} if self.averaged is None else {"average": self.averaged}
        return {"optimizer": self.optimizer, "scaler": self.scaler, **averaged}

    def save(self) -> None:
        """Write the last checkpoint."""
        save_last(
            self.spec,
            self.network,
            self.parts,
            self.progress,
            self.best,
            self.settings,
            self.ranks,
            input=self.network_input,
        )
        self.saved_at = time.monotonic()

    def _train_epoch(self) -> None:
        """Train with those patches of an epoch that were not trained on yet."""
        progress = self.progress
        self.order.epoch, self.order.start = progress.epoch, progress.position
        batches = batches_of(self.train_batches)
        clock = time.monotonic() - progress.seconds
        quiet = None if self.ranks.is_writer else True  # None: unless on a terminal
        with tqdm(desc="train", total=self.order.length, initial=progress.position, leave=False, disable=quiet) as bar:
            while step := list(islice(batches, self.plan.accumulate)):
                is_save_due = self._step(step)
                progress.seconds = time.monotonic() - clock
                bar.update(progress.position - bar.n)
                if is_save_due:
                    self.save()
                    self._stop_if_asked()

    def _step(self, batches: Sequence[Batch]) -> bool:
        """Take an optimizer step; returns whether the last checkpoint must be written.

        The gradient is that of the sum of the patches' losses, divided by the patches of a full step: the last step of
        an epoch, which may have fewer, has their share. A step without a finite loss and gradient is left out.
        """
        progress, settings = self.progress, self.settings
        in_epoch = self.order.length
        set_learning_rate(self.optimizer, settings, progress.epoch * in_epoch + progress.position, in_epoch)
        progress.learning_rate = used_learning_rate(self.optimizer)
        progress.prodigy_d = prodigy_estimate(self.optimizer) or 0.0
        full_step = self.plan.batch_size * self.plan.accumulate * self.ranks.count
        statistics = [buffer.clone() for buffer in self.network.buffers()]
        self.network.train()
        position, loss_sum, bad_places = progress.position, 0.0, []
        for batch in batches:
            together, own = self.order.patches_at(progress.position)
            progress.position += together
            with self._gradients_stay() if batch is not batches[-1] else nullcontext():
                loss = self._loss(batch)
                # DistributedDataParallel takes the mean over the processes.
                self.scaler.scale(loss * (own * self.ranks.count / full_step)).backward()
            value = loss.item()
            loss_sum += value * own if math.isfinite(value) else 0
            bad_places += batch.places if not math.isfinite(value) else []
        is_save_due = time.monotonic() - self.saved_at >= 60 * settings.checkpoint_minutes
        asked = is_save_due or self.interruption.signal_number is not None
        loss_sum, bad_losses, asked_ranks = self.ranks.sum([loss_sum, len(bad_places), asked])
        if not bad_losses and self._descend():
            progress.add_step(loss_sum, progress.position - position)
        else:
            for buffer, before in zip(self.network.buffers(), statistics, strict=True):
                buffer.copy_(before)  # those of a batch normalisation saw the patches too
            own_places = bad_places if bad_losses else [place for batch in batches for place in batch.places]
            self._leave_out([place for places in self.ranks.gather(own_places) for place in places])
        self.optimizer.zero_grad()
        return bool(asked_ranks)

    def _loss(self, batch: Batch) -> Tensor:
        with self.plan.device.autocast():
            logits = self.parallel(batch.image.to(self.device, non_blocking=True))
        loss: Tensor = self.task.loss(logits, batch.target.to(self.device, non_blocking=True))
        return loss

    def _gradients_stay(self) -> AbstractContextManager[None]:
        """In it, the gradients of a part of a step aren't exchanged between processes yet."""
        return self.parallel.no_sync() if isinstance(self.parallel, DistributedDataParallel) else nullcontext()

    def _descend(self) -> bool:
        """Change the weights by their gradients; False, and no change, if these are not finite.

        With fp16, gradients overflow now and then, until the scaler has lowered its factor: no fault of the data.
        """
        self.scaler.unscale_(self.optimizer)
        norm = clip_grad_norm_(self.network.parameters(), self.settings.clip or math.inf)
        is_finite = math.isfinite(norm.item())
        if not is_finite and (not self.scaler.is_enabled() or self.scaler.get_scale() < 1):
            self.scaler.update()
            return False
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if is_finite and self.averaged is not None:
            self.averaged.update_parameters(self.network)
        return True

    def _leave_out(self, places: Sequence[str]) -> None:
        self.progress.leave_out(places)
        told = ", ".join(dict.fromkeys(places))
        if self.progress.bad_in_a_row >= MOST_BAD_STEPS:
            raise UserError(
                f"{MOST_BAD_STEPS} steps in a row had no finite loss or gradient, the last with {told}; "
                f"check these cases, lower --lr {self.settings.lr:g}, or use --precision fp32"
            )
        if self.ranks.is_writer:
            tqdm.write(f"step left out: no finite loss or gradient with {told}")

    def _finish_epoch(self) -> None:
        """Validate, and close the epoch with its row of the history."""
        started = time.monotonic()
        task, progress, settings = self.task, self.progress, self.settings
        patches = validate_patches(
            task, self.average, self.validation_batches, self.plan, self.ranks, self._stop_in_validation
        )
        row: dict[str, Any] = {
            "epoch": progress.epoch + 1,
            "train_loss": progress.mean_loss,
            "validation_loss": patches.loss,
            task.score_name: patches.score,
            **patches.further,
        }
        score, score_name = patches.score, task.score_name
        if task.scores_patches:
            row[task.full_score_name] = ""
        if task.scores_patches and self._whole_scans_are_due(patches.score):
            self.save()  # whole scans may take long
            score_name = task.full_score_name
            score, left_out = self._validate_whole_scans()
            patches.left_out.extend(left_out)
            row[score_name] = score
        elif task.scores_patches:
            score = -math.inf
        row["lr"] = progress.learning_rate
        if settings.optimizer == "prodigy":
            row["prodigy_d"] = progress.prodigy_d
        row["steps_left_out"] = progress.bad_steps
        row["left_out"] = _listed(Counter(progress.bad_cases) + Counter(patches.left_out))
        row["seconds"] = round(progress.seconds + time.monotonic() - started, 1)
        is_best = score > self.best.score
        row["chosen_by"] = score_name if is_best else ""
        progress.finish_epoch(row, patches.score)
        if is_best:
            self._choose(score, score_name)

    def _choose(self, score: float, score_name: str) -> None:
        """Take the network as it is for the best one."""
        weights = {name: tensor.cpu().clone() for name, tensor in self.average.state_dict().items()}
        self.best = Best(self.progress.epoch, score, score_name, weights)

    def _whole_scans_are_due(self, score: float) -> bool:
        epoch, every = self.progress.epoch + 1, self.settings.whole_scans_every
        return epoch % every == 0 or self.progress.is_last(score, self.settings)

    def _validate_whole_scans(self) -> tuple[float, list[str]]:
        whole = self.datasets["whole"]
        return validate_whole_scans(self.task, self.average, whole, self.plan, self.ranks, self._stop_in_validation)

    def _stop_in_validation(self) -> None:
        """Stop, if a signal asked for it. Several processes can't all stop here; they do so at the end of the epoch."""
        if self.ranks.count == 1 and self.interruption.signal_number is not None:
            self.save()
            self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        number = max(self.ranks.gather(self.interruption.signal_number or 0))
        if number:
            raise Stopped(number, str(self.progress), self.interruption.again)

    def _write_best(self) -> None:
        if self.best.epoch == 0:  # there may be one of an epoch that is done again
            self.settings.run_folder.best_checkpoint.unlink(missing_ok=True)
            return
        save_checkpoint(
            self.settings.run_folder.best_checkpoint,
            self.spec,
            self.best.weights,
            self.settings.as_dict(),
            input=self.network_input | self.task.learn_from_validation(self.progress.history[self.best.epoch - 1]),
            epoch=self.best.epoch,
            chosen_by=self.best.score_name,
        )

    def _draw(self) -> None:
        """Draw the prediction for a validation subject after an epoch."""
        subject, epoch = self.shown, self.progress.epoch
        assert subject is not None
        probabilities_KXYZ = self.task.predict_image(self.average, subject["image"].data, self.plan)
        title = f"{subject['case_id']} (validation) after epoch {epoch}"
        figure = self.task.picture(subject, probabilities_KXYZ, title)
        save_figure(figure, self.settings.run_folder.epoch_picture(epoch))


def _subject_to_show(task: TrainingTask, dataset: h5VerSe) -> tio.Subject:
    """The validation patch with the most foreground: the same in every epoch."""
    subjects = (dataset[index] for index in range(len(dataset)))
    return max(subjects, key=lambda subject: int((subject[task.target_key].data > 0).sum()))


def _listed(counts: Counter[str]) -> str:
    """Cases and how many patches of each, for a cell of the history."""
    return "; ".join(f"{case} ({count})" for case, count in sorted(counts.items()))
