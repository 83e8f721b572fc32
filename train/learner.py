"""What learns: network, heads and optimiser, one step at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mambapro.cli import InputError
from mambapro.config import ExperimentConfig, TrainConfig
from mambapro.model.network import Heads, MambaPro, normalise
from mambapro.model.weights import Checkpoint, load_exactly
from train.data.triplets import Batch
from train.distributed import World
from train.losses import Pair, total_loss
from train.optimiser import build_optimiser, set_learning_rate


class TrainedModel(nn.Module):
    """Network and heads as one module, from uint8 images to the pairs that the losses take."""

    def __init__(self, network: MambaPro, heads: Heads):
        super().__init__()
        self.network, self.heads = network, heads

    def forward(self, images: Tensor, mask: Tensor, camera: Tensor) -> list[Pair]:
        """See MambaPro.embed for the arguments and Heads.forward for the result."""
        pairs: list[Pair] = self.heads(self.network(normalise(images, mask), camera))
        return pairs


class Learner:
    """A network with its heads, optimiser and loss scale."""

    def __init__(self, config: ExperimentConfig, network: MambaPro, identities: int, world: World):
        self.config, self.world, self.device = config.train, world, world.device
        self.network = network.to(self.device)
        self.network.tower.checkpointing = self.config.checkpointing
        self.heads = Heads(config.model, identities).to(self.device)
        self.optimiser = build_optimiser((self.network, self.heads), self.config)
        self.model = world.wrap(TrainedModel(self.network, self.heads))
        if self.config.compile:
            self.network.tower.compile()
        self.amp_type = amp_type(self.config, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp_type is torch.float16)

    @property
    def learning_rate(self) -> float:
        """The rate of weights; biases have their own."""
        rate: float = self.optimiser.param_groups[0]["lr"]
        return rate

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold beside network and heads."""
        return {
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def resume(self, checkpoint: Checkpoint, source: str) -> None:
        """Take over the weights of a checkpoint and what :meth:`state` put into it."""
        identities = self.heads.tokens.classifier.out_features
        if checkpoint.identities != identities:
            raise InputError(
                f"{source} was trained on {checkpoint.identities} identities, the data have "
                f"{identities}; resume with the data of the run"
            )
        training = checkpoint.training
        load_exactly(self.network, checkpoint.network.state_dict(), source)
        load_exactly(self.heads, checkpoint.heads, source)
        self.optimiser.load_state_dict(training["optimiser"])
        if training["scaler"]:
            self.scaler.load_state_dict(training["scaler"])

    def start_epoch(self, epoch: int) -> None:
        """Go to training mode, at the learning rate of ``epoch``, counted from 1."""
        self.network.train()
        self.heads.train()
        set_learning_rate(self.optimiser, epoch, self.config)

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
        return torch.stack(losses).mean().item()

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of the batch that all processes hold parts of."""
        gather, amp = self.world.gather, self.amp_type is not None
        with torch.autocast(self.device.type, dtype=self.amp_type, enabled=amp):
            pairs = self.model(batch.images, batch.mask, batch.camera)
            pairs = [(gather(logits), gather(feature)) for logits, feature in pairs]
            return total_loss(pairs, gather(batch.label), self.config)

    def _averaged_gradients(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Let the processes average their gradients once a step, after its last batch."""
        if isinstance(self.model, DistributedDataParallel) and not last:
            return self.model.no_sync()
        return contextlib.nullcontext()


def amp_type(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    """Return the type of products under mixed precision; None without it."""
    if not config.amp or (config.amp_type == "auto" and device.type != "cuda"):
        return None
    return torch.bfloat16 if config.amp_type == "bfloat16" else torch.float16
