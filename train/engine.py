"""The training loop: steps, evaluations, checkpoints, and going on where a run was stopped."""

from __future__ import annotations

import dataclasses
import logging
import math
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from mambapro.cli import CheckError, InputError
from mambapro.config import ExperimentConfig
from mambapro.datasets import Dataset
from mambapro.model.network import Heads, MambaPro, normalise
from mambapro.model.weights import Checkpoint, load_exactly, save_checkpoint
from train.data.triplets import Batch, TrainTriplets, train_loader
from train.evaluation import FUSED, Evaluator
from train.interrupt import Interrupt
from train.losses import total_loss
from train.optimiser import build_optimiser, set_learning_rate
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
    """Loss of each of its batches that are done."""
    steps: int = 0
    """Batches done in all epochs."""
    epoch_losses: list[float] = field(default_factory=list)
    """Mean loss of each finished epoch."""
    best_map: float = -1.0
    """Highest mAP of the evaluations so far, 0 to 1."""
    untrained_map: float = 0.0
    """mAP before the first step, 0 to 1."""
    seconds: float = 0.0
    """Time spent training, evaluations included, over all resumptions."""


class Trainer:
    """A network, its heads, optimiser and data, and how far they have come."""

    def __init__(
        self,
        config: ExperimentConfig,
        network: MambaPro,
        dataset: Dataset,
        output: Path,
        device: torch.device,
    ):
        self.config, self.output, self.device = config, output, device
        self.network = network.to(device)
        self.heads = Heads(config.model, len(dataset.train.identities)).to(device)
        self.optimiser = build_optimiser((self.network, self.heads), config.train)
        self.amp = config.train.amp and device.type == "cuda"
        self.scaler = torch.amp.GradScaler(enabled=self.amp)
        triplets = TrainTriplets(dataset.train, config)
        self.sampler = IdentitySampler(
            triplets.labels, config.train.batch_size, config.train.instances, config.train.seed
        )
        self.loader = train_loader(triplets, self.sampler, device)
        self.evaluator = Evaluator(dataset, config, device)
        self.progress = Progress()

    def resume(self, checkpoint: Checkpoint, source: str) -> None:
        """Take over weights, optimiser and progress of a checkpoint written by :meth:`save`."""
        training = checkpoint.training
        if "optimiser" not in training:
            raise InputError(f"{source} holds no training state; go on from {LAST} beside it")
        identities = self.heads.tokens.classifier.out_features
        if checkpoint.identities != identities:
            raise InputError(
                f"{source} was trained on {checkpoint.identities} identities, the data have "
                f"{identities}; resume with the data of the run"
            )
        load_exactly(self.network, checkpoint.network.state_dict(), source)
        load_exactly(self.heads, checkpoint.heads, source)
        self.optimiser.load_state_dict(training["optimiser"])
        self.scaler.load_state_dict(training["scaler"])
        self.progress = Progress(**training["progress"])

    def save(self) -> None:
        """Write the checkpoint to go on from."""
        training = {
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": dataclasses.asdict(self.progress),
        }
        self._write(LAST, training)

    def train(self) -> None:
        """Train to the last epoch; on Ctrl-C save after the current step, then KeyboardInterrupt.

        Writes last.pt after each epoch and best.pt after an evaluation that beats all before.
        """
        started = time.monotonic() - self.progress.seconds
        with (
            Interrupt() as interrupt,
            SummaryWriter(
                str(self.output / "tensorboard"), purge_step=self.progress.steps
            ) as board,
            self._progress_bar() as bar,
        ):
            while self.progress.epoch <= self.config.train.epochs:
                finished = self._run_epoch(interrupt, bar, board)
                if finished:
                    self._finish_epoch(bar, board)
                self.progress.seconds = time.monotonic() - started
                self.save()
                if interrupt.requested:
                    _log.warning("interrupted; go on with --resume %s", self.output / LAST)
                    raise KeyboardInterrupt

    def step(self, batch: Batch) -> float:
        """Update the weights once and return the loss."""
        with torch.autocast(self.device.type, enabled=self.amp):
            features = self.network(normalise(batch.images, batch.mask), batch.camera)
            loss = total_loss(self.heads(features), batch.label, self.config.train)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.network.centre is not None:
            self.network.centre.copy_(self.heads.mean_feature())
        return loss.item()

    def _run_epoch(self, interrupt: Interrupt, bar: tqdm, board: SummaryWriter) -> bool:
        """Train on what is left of the epoch; False when an interrupt ended it early."""
        progress = self.progress
        self.network.train()
        self.heads.train()
        set_learning_rate(self.optimiser, progress.epoch, self.config.train)
        self.sampler.epoch, self.sampler.done = progress.epoch, len(progress.losses)
        for batch in self.loader:
            if interrupt.requested:
                return False
            loss = self.step(batch.to(self.device))
            self._check_finite(loss)
            progress.losses.append(loss)
            progress.steps += 1
            board.add_scalar("train/loss", loss, progress.steps)
            bar.set_postfix(epoch=progress.epoch, loss=f"{loss:.3f}", refresh=False)
            bar.update()
        return True

    def _finish_epoch(self, bar: tqdm, board: SummaryWriter) -> None:
        progress, epochs = self.progress, self.config.train.epochs
        progress.epoch_losses.append(statistics.fmean(progress.losses))
        board.add_scalar("train/lr", self.optimiser.param_groups[0]["lr"], progress.steps)
        if progress.epoch % self.config.train.eval_every == 0 or progress.epoch == epochs:
            ranking = self.evaluator.rank(self.network)[FUSED]
            board.add_scalar("test/map", ranking.map, progress.steps)
            board.add_scalar("test/r1", ranking.rank(1), progress.steps)
            bar.write(
                f"epoch {progress.epoch}/{epochs}: loss {progress.epoch_losses[-1]:.3f}, "
                f"mAP {ranking.map:.1%}, R-1 {ranking.rank(1):.1%}",
                file=sys.stderr,
            )
            self._keep_best(ranking.map)
        progress.epoch += 1
        progress.losses = []

    def _keep_best(self, value: float) -> None:
        if value > self.progress.best_map:
            self.progress.best_map = value
            self._write(BEST, {"epoch": self.progress.epoch, "map": value})

    def _write(self, name: str, training: dict[str, Any]) -> None:
        path = self.output / name
        try:
            save_checkpoint(path, self.config, self.network, self.heads, training)
        except RuntimeError as error:  # what torch's writer makes of a full disk, 2.13
            raise InputError(
                f"cannot write {path} ({str(error).splitlines()[0]}); is the disk full? "
                "The last good checkpoint is still there"
            ) from error

    def _check_finite(self, loss: float) -> None:
        # A scaler skips the steps whose gradients overflow; without one the weights are lost.
        if not math.isfinite(loss) and not self.amp:
            raise CheckError(
                f"the loss became {loss} in epoch {self.progress.epoch}; lower train.lr "
                f"({self.config.train.lr:g}) or lengthen train.warmup_epochs; "
                f"{self.output / LAST} is of the last good epoch"
            )

    def _progress_bar(self) -> tqdm:
        # Epochs differ by a batch or two, so the total is an estimate.
        total = self.config.train.epochs * len(self.sampler.batches())
        return tqdm(
            total=total,
            initial=self.progress.steps,
            desc=self.output.name,
            unit="step",
            file=sys.stderr,
            mininterval=1,
        )
