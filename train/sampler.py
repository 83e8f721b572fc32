"""PK sampling: each batch holds P identities with K triplets of each (Hermans et al., 2017)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from mambapro.cli import InputError


class Draw(NamedTuple):
    """One place in a batch; together with the seed it decides every random number behind it."""

    record: int
    """Index of the record in its split."""
    epoch: int
    """Epoch, from 1."""
    position: int
    """Place among all draws of the epoch."""


class IdentitySampler(Sampler[list[Draw]]):
    """Batches of an epoch as a function of (seed, epoch); set ``epoch`` before iterating.

    Each identity's triplets are shuffled and cut into groups of ``instances`` (an identity with
    fewer fills one group by repetition). Batches take one group from each of P identities until
    fewer than P identities have groups left. ``done`` batches of the epoch are skipped.

    Of several processes each takes its part of every batch, whole identities: together they see
    what one process would see.
    """

    def __init__(
        self,
        labels: Sequence[int],
        batch_size: int,
        instances: int,
        seed: int,
        rank: int = 0,
        processes: int = 1,
    ):
        self.rank, self.processes = rank, processes
        self.by_label = defaultdict(list)
        for record, label in enumerate(labels):
            self.by_label[label].append(record)
        self.instances, self.seed = instances, seed
        self.identities = batch_size // instances
        self.epoch, self.done = 1, 0
        if len(self.by_label) < self.identities:
            raise InputError(
                f"a batch of {batch_size} with {instances} instances needs {self.identities} "
                f"identities, the training split has {len(self.by_label)}; lower train.batch_size"
            )
        if self.identities % processes:
            raise InputError(
                f"{processes} processes cannot share the {self.identities} identities of a batch "
                f"evenly; make train.batch_size {batch_size} a multiple of "
                f"{instances * processes} (train.instances x processes)"
            )

    def __len__(self) -> int:
        return len(self.batches()) - self.done

    def __iter__(self) -> Iterator[list[Draw]]:
        size = self.identities * self.instances
        share = size // self.processes
        own = range(self.rank * share, (self.rank + 1) * share)
        for number, batch in enumerate(self.batches()[self.done :], start=self.done):
            yield [Draw(batch[i], self.epoch, number * size + i) for i in own]

    def batches(self) -> list[list[int]]:
        """Return the record indices of each batch of the current epoch."""
        random = np.random.default_rng([self.seed, self.epoch])
        groups = {label: self._groups(records, random) for label, records in self.by_label.items()}
        batches = []
        while len(groups) >= self.identities:
            chosen = random.choice(list(groups), self.identities, replace=False)
            batches.append([record for label in chosen for record in groups[label].pop()])
            groups = {label: left for label, left in groups.items() if left}
        return batches

    def _groups(self, records: list[int], random: np.random.Generator) -> list[list[int]]:
        order = random.permutation(records).tolist()
        if len(order) < self.instances:
            order = random.choice(records, self.instances).tolist()
        starts = range(0, len(order) - self.instances + 1, self.instances)
        return [order[start : start + self.instances] for start in starts]
