"""Keeps what is in memory of a gallery and what its backend holds the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from mambapro.cli import NotThereError
from mambapro.spec import ModelSpec
from runtime.config import GalleryConfig
from runtime.gallery.averaging import average_of, average_point
from runtime.gallery.backend import FIRST, Backend
from runtime.gallery.facts import check_facts, facts_of
from runtime.gallery.records import Embedding, Payload, Purged, Record
from runtime.gallery.roster import Known, Roster, labelled

MOVING_AVERAGE: Final = "moving_average"
"""The fact that says with which weight the averages were made."""

Changes = Mapping[str, Known | None]
"""Identities as they will be; None is gone."""
OnPurge = Callable[[Purged], None]


class Keeper:
    """The one that writes: first to the backend, then to `roster`, the same in memory."""

    def __init__(
        self, backend: Backend, spec: ModelSpec, config: GalleryConfig, on_purge: OnPurge | None
    ) -> None:
        """Read ``backend``; InputError when it holds embeddings of another model."""
        self.backend, self._spec, self._config = backend, spec, config
        self._on_purge: OnPurge = on_purge or (lambda purged: None)
        letter = spec.subject[0].upper()
        self._prefix = f"{config.site}-{letter}" if config.site else letter
        self.roster = Roster()
        """Everybody who is known."""
        self.next = 1
        """Number of the next new identity."""
        self.read()
        self._refresh_averages()

    @property
    def counter(self) -> str:
        """Return the fact that holds the number of the next new identity."""
        return f"next {self._prefix}"

    def new_identity(self) -> str:
        """Return a name that nobody has or ever had."""
        return f"{self._prefix}{self.next}"

    def require(self, identity: str) -> Known:
        """Return ``identity``; NotThereError when there is none."""
        self.look_for(identity)
        if identity not in self.roster:
            raise NotThereError(
                f"gallery {self.backend.place} knows no {identity!r}; it knows "
                f"{len(self.roster)} identities"
            )
        return self.roster[identity]

    def look_for(self, identity: str) -> None:
        """Read the backend again when others may have added ``identity`` to it."""
        if identity not in self.roster and self.backend.shared:
            self.read()

    def read(self) -> None:
        """Read everybody from the backend."""
        facts = self.backend.facts()
        self.roster = Roster.read(self.backend.payloads())
        if "embedding_space" not in facts and not self.roster:
            facts |= facts_of(self._spec)
            self.backend.write([], [], facts)
        check_facts(self.backend.place, facts, self._spec, self._config.mix_precisions)
        numbered = int(facts.get(self.counter, 1)), int(facts.get(FIRST, 1))
        self.next = max([self.next, *numbered, *map(self._after, self.roster)])

    def record(
        self, point: str, identity: str, known: Known, embedding: Embedding, payload: Payload
    ) -> Record:
        """Return a new record of ``identity``."""
        space, precision = self._spec.embedding_space, self._spec.precision
        facts = {"embedding_space": space, "precision": precision}
        return labelled(Record(point, embedding, {**payload, **facts}), identity, known)

    def relabel(self, changed: Changes) -> None:
        """Write the templates of ``changed`` anew, with what their identities are called now."""
        records = [
            labelled(record, identity, known)
            for identity, known in changed.items()
            if known is not None
            for record in self.backend.records(list(known.times))
        ]
        self.write(records, changed)

    def purge(self, identity: str, points: Sequence[str]) -> Purged:
        """Delete templates of ``identity``, after saying so."""
        purged = self.tell(identity, points)
        known = self.roster[identity]
        stays = known.only(known.times.keys() - set(points))
        self.write([], {identity: stays}, purge=True)
        return purged

    def tell(self, identity: str, points: Sequence[str]) -> Purged:
        """Say what of ``identity`` is about to be deleted."""
        known = self.roster[identity]
        whole = len(points) == len(known.times)
        purged = Purged(identity, known.aliases, whole, len(points))
        self._on_purge(purged)
        return purged

    def write(
        self,
        records: Sequence[Record],
        changed: Changes,
        *,
        following: int = 1,
        purge: bool = False,
    ) -> None:
        """Write ``records`` and all that follows from ``changed``, then remember it.

        The next new identity gets at least the number ``following``.
        """
        before = [p for name in changed if name in self.roster for p in self.roster[name].times]
        after = {p for known in changed.values() if known is not None for p in known.times}
        averages, no_averages = self._averages(records, changed)
        following = max([following, self.next, *map(self._after, changed)])
        self.backend.write(
            [*records, *averages],
            [point for point in before if point not in after] + no_averages,
            {} if following == self.next else {self.counter: following},
            purge=purge,
        )
        self.roster.change(changed, records)
        self.next = following

    def _after(self, identity: str) -> int:
        """Return the number after that of ``identity``; 1 when it is not one of ours."""
        number = identity.removeprefix(self._prefix)
        return int(number) + 1 if number != identity and number.isdecimal() else 1

    def _averages(
        self, records: Sequence[Record], changed: Changes
    ) -> tuple[list[Record], list[str]]:
        """Return the averages to write, and those to delete."""
        newest = self._config.moving_average
        if newest is None:
            return [], []
        written = {record.point: record for record in records}
        averages = []
        for identity, known in changed.items():
            if known is not None:
                others = [point for point in known.times if point not in written]
                held = {record.point: record for record in self.backend.records(others)} | written
                averages.append(average_of(identity, [held[p] for p in known.times], newest))
        return averages, [average_point(name) for name, known in changed.items() if known is None]

    def _refresh_averages(self) -> None:
        """Make all averages anew when another weight was used before, or none."""
        newest = self._config.moving_average
        if self.backend.facts().get(MOVING_AVERAGE) == newest:
            return
        averages, _ = self._averages([], self.roster)
        none = [] if averages else [average_point(identity) for identity in self.roster]
        self.backend.write(averages, none, {MOVING_AVERAGE: newest})
