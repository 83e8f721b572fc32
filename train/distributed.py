"""Several processes that train as one: each holds a part of every batch, whole identities.

``torchrun --nproc-per-node 2 train/main.py`` starts them. What one process would compute over a
batch as a whole is computed over the parts together: the losses on gathered features, so that the
hardest triplets are the batch's, and batch normalisation on statistics of all parts. Gradients are
averaged by DistributedDataParallel. See docs/decisions/0020.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.parallel import DistributedDataParallel

from mambapro.cli import CheckError, MissingError

T = TypeVar("T")

PATIENCE: Final = datetime.timedelta(hours=1)
"""How long a process waits for the others; the first one evaluates, the others wait for it."""
AFTERGLOW_S: Final = 0.5
"""How long the backend's threads get to finish before the group is destroyed."""


@dataclass(frozen=True)
class World:
    """The processes that train together; alone, every method is the identity."""

    device: torch.device
    rank: int = 0
    """This one's number, from 0."""
    size: int = 1
    """How many there are."""

    @property
    def leads(self) -> bool:
        """Whether this process evaluates, writes and prints."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return ``module`` with gradients averaged and batch normalisation shared."""
        if self.size == 1:
            return module
        share_batch_norm(module)
        ids = None if self.device.type == "cpu" else [self.device]
        # Every process holds the same buffers already; some parameters of the paper's network never
        # get a gradient (the first block's residual prompt).
        return DistributedDataParallel(
            module, device_ids=ids, broadcast_buffers=False, find_unused_parameters=True
        )

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows (b, ...) of all processes in order, (size*b, ...).

        Only the own rows carry a gradient. Every process computes the whole loss, so that gradient
        is complete; ``size`` times the loss makes up for the average over processes.
        """
        if self.size == 1:
            return rows
        own = rows.detach().contiguous()
        parts = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(parts, own)
        parts[self.rank] = rows
        return torch.cat(parts)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process."""
        if self.size == 1:
            return flag
        flags = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags.item())

    def from_leader(self, compute: Callable[[], T]) -> T:
        """Return what ``compute`` gives on the first process; the others wait for it."""
        if self.size == 1:
            return compute()
        values: list[Any] = [compute() if self.leads else None]
        dist.broadcast_object_list(values, device=self.device)
        result: T = values[0]
        return result

    def leader_first(self, compute: Callable[[], T]) -> T:
        """Compute on the first process, then on the others, which find what it has written."""
        if self.leads:
            value = compute()
            self.from_leader(bool)
            return value
        self.from_leader(bool)
        return compute()


@contextlib.contextmanager
def joined(device: str) -> Iterator[World]:
    """Yield the world that torchrun describes in the environment, or that of one process.

    ``device`` is auto, cpu or cuda. Raises MissingError for a device that is not there, and
    CheckError when another process has ended or does not answer.
    """
    size, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    world = World(pick_device(device, local), int(os.environ.get("RANK", "0")), size)
    if size == 1:
        yield world
        return
    backend = "nccl" if world.device.type == "cuda" else "gloo"
    with _lost_peers():
        dist.init_process_group(backend, timeout=PATIENCE)
        try:
            yield world
        finally:
            # torch 2.13: gloo's thread may still want the GIL to drop the last exchange's tensors,
            # while the group's destructor holds it and waits for that thread, for ever.
            time.sleep(AFTERGLOW_S)
            dist.destroy_process_group()


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device of the process ``local_rank`` of this machine."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise MissingError(
            f"--device cuda: torch {torch.__version__} finds no CUDA device; install a CUDA build "
            "of torch and the driver, or use --device cpu"
        )
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise MissingError(
            f"process {local_rank} of this machine has no GPU, there are {count}; start torchrun "
            f"with --nproc-per-node {count}"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


@contextlib.contextmanager
def _lost_peers() -> Iterator[None]:
    """Turn what the backends raise about another process into one line."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise CheckError(
            "another process of this run has ended or does not answer "
            f"({str(error).strip().splitlines()[0]}); its own message says why. The last good "
            "checkpoint is still there: go on with --resume"
        ) from error


def share_batch_norm(module: nn.Module) -> None:
    """Let every batch normalisation in ``module`` use the statistics of all processes.

    torch's SyncBatchNorm does the same on GPUs only.
    """
    for part in module.modules():
        if type(part) in _SHARED:
            part.__class__ = _SHARED[type(part)]


class _Shared(nn.modules.batchnorm._BatchNorm):
    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``input`` (b, C, ...), every process holding equally many rows."""
        if not self.training:
            return super().forward(input)
        axes = [axis for axis in range(input.dim()) if axis != 1]
        column = (1, -1) + (1,) * (input.dim() - 2)
        x = input.float()
        mean = _mean_of_all(x.mean(axes))  # (C,)
        x = x - mean.view(column)
        variance = _mean_of_all(x.square().mean(axes))
        count = x.numel() // x.shape[1] * dist.get_world_size()
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (x * scale.view(column) + self.bias.view(column)).to(input.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


class _Shared1d(_Shared, nn.BatchNorm1d):
    pass


class _Shared2d(_Shared, nn.BatchNorm2d):
    pass


_SHARED: Final[dict[type[nn.Module], type[nn.Module]]] = {
    nn.BatchNorm1d: _Shared1d,
    nn.BatchNorm2d: _Shared2d,
}


def _mean_of_all(x: Tensor) -> Tensor:
    """Mean over processes; its gradient comes from all of them."""
    total: Tensor = all_reduce(x)  # type: ignore[no-untyped-call]
    return total / dist.get_world_size()
