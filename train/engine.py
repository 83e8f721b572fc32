"""The training loop: epochs, evaluations, checkpoints, and going on where a run was stopped."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import math
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mambapro.cli import CheckError, InputError
from mambapro.config import ExperimentConfig
from mambapro.datasets import Dataset
from mambapro.model.network import MambaPro
from mambapro.model.weights import Checkpoint, save_checkpoint
from train.data.triplets import Batch, TrainTriplets, train_loader
from train.distributed import World
from train.evaluation import FUSED, Evaluator
from train.interrupt import Interrupt
from train.journal import Journal
from train.learner import Learner
from train.sampler import IdentitySampler

LAST: Final = "last.pt"
"""Everything a run needs to go on."""
BEST: Final = "best.pt"
"""The network of the evaluation with the highest mAP."""

_log = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a run has come; plain values that go into the checkpoint."""

    epoch: int = 1
    """Epoch under way, from 1."""
    losses: list[float] = field(default_factory=list)
    """Loss of each of its steps that are done."""
    steps: int = 0
    """Steps done in all epochs."""
    epoch_losses: list[float] = field(default_factory=list)
    """Mean loss of each finished epoch."""
    best_map: float = -1.0
    """Highest mAP of the evaluations so far, 0 to 1."""
    untrained_map: float = 0.0
    """mAP before the first step, 0 to 1."""
    seconds: float = 0.0
    """Time spent training, evaluations included, over all resumptions."""


class Trainer:
    """What learns, the data it learns from, and how far it has come."""

    def __init__(
        self,
        config: ExperimentConfig,
        network: MambaPro,
        dataset: Dataset,
        output: Path,
        world: World,
    ):
        self.config, self.dataset, self.output = config, dataset, output
        self.world, self.device = world, world.device
        self.learner = Learner(config, network, len(dataset.train.identities), world)
        triplets = TrainTriplets(dataset.train, config)
        self.sampler = IdentitySampler(
            triplets.labels,
            config.train.batch_size,
            config.train.instances,
            config.train.seed,
            world.rank,
            world.size,
        )
        self.loader = train_loader(triplets, self.sampler, self.device)
        self.progress = Progress()

    @functools.cached_property
    def evaluator(self) -> Evaluator:
        """The test split; the first process alone reads it."""
        return Evaluator(self.dataset, self.config, self.device)

    def resume(self, checkpoint: Checkpoint, source: str) -> None:
        """Take over weights, optimiser and progress of a checkpoint written by :meth:`save`."""
        training = checkpoint.training
        if "optimiser" not in training:
            raise InputError(f"{source} holds no training state; go on from {LAST} beside it")
        self.learner.resume(checkpoint, source)
        self.progress = Progress(**training["progress"])

    def save(self) -> None:
        """Write the checkpoint to go on from."""
        training = {**self.learner.state(), "progress": dataclasses.asdict(self.progress)}
        self._write(LAST, self.learner.network, training)

    def train(self) -> None:
        """Train to the last epoch; when interrupted save after the current step and raise.

        Writes last.pt after each epoch and best.pt after an evaluation that beats all before.
        """
        started = time.monotonic() - self.progress.seconds
        with Interrupt(patient=self.world.size > 1) as interrupt, self._journal() as journal:
            while self.progress.epoch <= self.config.train.epochs:
                finished = self._run_epoch(interrupt, journal)
                if finished:
                    self._finish_epoch(journal)
                self.progress.seconds = time.monotonic() - started
                self.save()
                if self.world.any(interrupt.requested):
                    _log.warning("interrupted; go on with --resume %s", self.output / LAST)
                    raise KeyboardInterrupt

    def _run_epoch(self, interrupt: Interrupt, journal: Journal) -> bool:
        """Train on what is left of the epoch; False when an interrupt ended it early."""
        progress, accumulate = self.progress, self.config.train.accumulate
        self.learner.start_epoch(progress.epoch)
        self.sampler.epoch, self.sampler.done = progress.epoch, len(progress.losses) * accumulate
        for batches in grouped(self.loader, accumulate):
            if self.world.any(interrupt.requested):
                return False
            loss = self.learner.step([batch.to(self.device) for batch in batches])
            self._check_finite(loss)
            progress.losses.append(loss)
            progress.steps += 1
            figures = {"loss": loss, "lr": self.learner.learning_rate}
            journal.step(progress.steps, progress.epoch, figures)
        return True

    def _finish_epoch(self, journal: Journal) -> None:
        progress, epochs = self.progress, self.config.train.epochs
        progress.epoch_losses.append(statistics.fmean(progress.losses))
        if progress.epoch % self.config.train.eval_every == 0 or progress.epoch == epochs:
            figures = self.world.from_leader(self.evaluate)
            figures["loss"] = progress.epoch_losses[-1]
            journal.evaluation(progress.steps, progress.epoch, figures)
            self._keep_best(figures["map"])
        progress.epoch += 1
        progress.losses = []

    def evaluate(self) -> dict[str, float]:
        """Return mAP and R-1 of the network as it is, 0 to 1."""
        ranking = self.evaluator.rank(self.learner.network)[FUSED]
        return {"map": ranking.map, "r1": ranking.rank(1)}

    def _keep_best(self, value: float) -> None:
        if value > self.progress.best_map:
            self.progress.best_map = value
            self._write(BEST, self.learner.network, {"epoch": self.progress.epoch, "map": value})

    def _write(self, name: str, network: MambaPro, training: dict[str, Any]) -> None:
        if not self.world.leads:
            return
        path = self.output / name
        try:
            save_checkpoint(path, self.config, network, self.learner.heads, training)
        except RuntimeError as error:  # what torch's writer makes of a full disk, 2.13
            raise InputError(
                f"cannot write {path} ({str(error).splitlines()[0]}); is the disk full? "
                "The last good checkpoint is still there"
            ) from error

    def _check_finite(self, loss: float) -> None:
        # A scaler skips the steps whose gradients overflow; without one the weights are lost.
        if not math.isfinite(loss) and not self.learner.scaler.is_enabled():
            raise CheckError(
                f"the loss became {loss} in epoch {self.progress.epoch}; lower train.lr "
                f"({self.config.train.lr:g}) or lengthen train.warmup_epochs; "
                f"{self.output / LAST} is of the last good epoch"
            )

    def _journal(self) -> Journal:
        steps = math.ceil(len(self.sampler.batches()) / self.config.train.accumulate)
        return Journal(
            self.output,
            self.progress.steps,
            steps * self.config.train.epochs,
            writes=self.world.leads,
        )


def grouped(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Yield lists of ``size`` batches; the last may be shorter."""
    remaining = iter(batches)
    while group := list(itertools.islice(remaining, size)):
        yield group
