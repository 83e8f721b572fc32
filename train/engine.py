"""The training loop: steps, evaluations, checkpoints, and going on where a run was stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import logging
import math
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mambapro.cli import CheckError, InputError
from mambapro.config import ExperimentConfig, TrainConfig
from mambapro.datasets import Dataset
from mambapro.model.network import Heads, MambaPro, normalise
from mambapro.model.weights import Checkpoint, load_exactly, save_checkpoint
from train.data.triplets import Batch, TrainTriplets, train_loader
from train.distributed import World
from train.evaluation import FUSED, Evaluator
from train.interrupt import Interrupt
from train.journal import Journal
from train.losses import EVERY_ROW, Pair, total_loss
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


class TrainedModel(nn.Module):
    """Network and heads as one module, from uint8 images to the pairs that the losses take."""

    def __init__(self, network: MambaPro, heads: Heads):
        super().__init__()
        self.network, self.heads = network, heads

    def forward(self, images: Tensor, mask: Tensor, camera: Tensor) -> list[Pair]:
        """See MambaPro.embed for the arguments and Heads.forward for the result."""
        pairs: list[Pair] = self.heads(self.network(normalise(images, mask), camera))
        return pairs


class Trainer:
    """A network, its heads, optimiser and data, and how far they have come."""

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
        self.network = network.to(self.device)
        self.network.tower.checkpointing = config.train.checkpointing
        self.heads = Heads(config.model, len(dataset.train.identities)).to(self.device)
        self.average = moving_average(self.network, config.train.ema)
        self.optimiser = build_optimiser((self.network, self.heads), config.train)
        self.model = world.wrap(TrainedModel(self.network, self.heads))
        if config.train.compile:
            self.network.tower.compile()
        self.amp_type = amp_type(config.train, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp_type is torch.float16)
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

    @property
    def judged(self) -> MambaPro:
        """The network that is evaluated and kept as best: the moving average if there is one."""
        if self.average is None:
            return self.network
        assert isinstance(self.average.module, MambaPro)
        return self.average.module

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
        if training["scaler"]:
            self.scaler.load_state_dict(training["scaler"])
        # A run that had no average starts one: its first update copies the weights.
        if self.average is not None and training.get("average"):
            self.average.load_state_dict(training["average"])
        self.progress = Progress(**training["progress"])

    def save(self) -> None:
        """Write the checkpoint to go on from."""
        training = {
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": {} if self.average is None else self.average.state_dict(),
            "progress": dataclasses.asdict(self.progress),
        }
        self._write(LAST, self.network, training)

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

    def step(self, batches: Sequence[Batch]) -> float:
        """Update the weights once, by the mean gradient of ``batches``; return their mean loss."""
        self.optimiser.zero_grad(set_to_none=True)
        losses = []
        for number, batch in enumerate(batches, start=1):
            with self._averaged_gradients(last=number == len(batches)):
                loss = self.loss(batch)
                # times size: see World.gather.
                scaled = self.scaler.scale(loss * (self.world.size / len(batches)))
                scaled.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.network.centre is not None:
            self.network.centre.copy_(self.heads.mean_feature())
        if self.average is not None:
            self.average.update_parameters(self.network)
        return torch.stack(losses).mean().item()

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of the batch that all processes hold parts of."""
        gather, amp = self.world.gather, self.amp_type is not None
        with torch.autocast(self.device.type, dtype=self.amp_type, enabled=amp):
            pairs = self.model(batch.images, batch.mask, batch.camera)
            pairs = [(gather(logits), gather(feature)) for logits, feature in pairs]
            compared = EVERY_ROW
            if self.config.train.modality_dropout:
                compared = complete_rows(gather(batch.mask))
            return total_loss(pairs, gather(batch.label), self.config.train, compared)

    def _averaged_gradients(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Let the processes average their gradients once a step, after its last batch."""
        if isinstance(self.model, DistributedDataParallel) and not last:
            return self.model.no_sync()
        return contextlib.nullcontext()

    def _run_epoch(self, interrupt: Interrupt, journal: Journal) -> bool:
        """Train on what is left of the epoch; False when an interrupt ended it early."""
        progress, accumulate = self.progress, self.config.train.accumulate
        self.network.train()
        self.heads.train()
        set_learning_rate(self.optimiser, progress.epoch, self.config.train)
        self.sampler.epoch, self.sampler.done = progress.epoch, len(progress.losses) * accumulate
        for batches in grouped(self.loader, accumulate):
            if self.world.any(interrupt.requested):
                return False
            loss = self.step([batch.to(self.device) for batch in batches])
            self._check_finite(loss)
            progress.losses.append(loss)
            progress.steps += 1
            lr = self.optimiser.param_groups[0]["lr"]
            journal.step(progress.steps, progress.epoch, {"loss": loss, "lr": lr})
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
        ranking = self.evaluator.rank(self.judged)[FUSED]
        return {"map": ranking.map, "r1": ranking.rank(1)}

    def _keep_best(self, value: float) -> None:
        if value > self.progress.best_map:
            self.progress.best_map = value
            self._write(BEST, self.judged, {"epoch": self.progress.epoch, "map": value})

    def _write(self, name: str, network: MambaPro, training: dict[str, Any]) -> None:
        if not self.world.leads:
            return
        path = self.output / name
        try:
            save_checkpoint(path, self.config, network, self.heads, training)
        except RuntimeError as error:  # what torch's writer makes of a full disk, 2.13
            raise InputError(
                f"cannot write {path} ({str(error).splitlines()[0]}); is the disk full? "
                "The last good checkpoint is still there"
            ) from error

    def _check_finite(self, loss: float) -> None:
        # A scaler skips the steps whose gradients overflow; without one the weights are lost.
        if not math.isfinite(loss) and not self.scaler.is_enabled():
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


def amp_type(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    """Return the type of products under mixed precision; None without it."""
    if not config.amp or (config.amp_type == "auto" and device.type != "cuda"):
        return None
    return torch.bfloat16 if config.amp_type == "bfloat16" else torch.float16


def complete_rows(mask: Tensor) -> Tensor | slice:
    """Return which rows of ``mask`` (B, M) miss nothing; every row when none is complete."""
    complete = mask.all(1)
    return complete if complete.any() else EVERY_ROW


def moving_average(network: MambaPro, decay: float) -> AveragedModel | None:
    """Return a copy of ``network`` that follows it at ``decay`` a step, buffers too; 0 is none."""
    if not decay:
        return None
    follow = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    average = AveragedModel(network, multi_avg_fn=follow, use_buffers=True)
    return average.requires_grad_(False)


def grouped(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Yield lists of ``size`` batches; the last may be shorter."""
    remaining = iter(batches)
    while group := list(itertools.islice(remaining, size)):
        yield group
