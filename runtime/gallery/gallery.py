"""Who is known: identities of one embedding space, with several templates each.

A template is the fused embedding of one sighting. An identity keeps the newest few, and, if that is
asked for, their moving average as one more. Whatever a call changes is durable when it returns.
"""

from __future__ import annotations

import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import numpy as np

from mambapro.cli import InputError
from mambapro.spec import ModelSpec
from runtime.config import GalleryConfig
from runtime.gallery.averaging import average_of, average_point
from runtime.gallery.backend import FIRST, Backend, Facts
from runtime.gallery.facts import check_facts, facts_of
from runtime.gallery.records import (
    Candidate,
    Embedding,
    Identity,
    Payload,
    Purged,
    Record,
    Template,
)
from runtime.gallery.roster import Known, Roster, labelled, time_of

SEARCH_LIMIT: Final = 64
"""Templates that a search looks at: those most similar to the query."""

MOVING_AVERAGE: Final = "moving_average"
"""The fact that says with which weight the averages were made."""

OnPurge = Callable[[Purged], None]


class Gallery:
    """Identities of one embedding space. Any thread may call."""

    def __init__(
        self,
        backend: Backend,
        spec: ModelSpec,
        config: GalleryConfig,
        on_purge: OnPurge | None = None,
    ) -> None:
        """Own ``backend``; ``open_gallery`` chooses one.

        ``on_purge`` is called with what is about to be deleted of an identity, and by whoever that
        is asked for: when it raises, nothing is deleted, so no snapshot outlives the embeddings.
        Raises InputError when the gallery holds embeddings of another model, or of another
        precision and ``mix_precisions`` is off.
        """
        self._backend, self._spec, self._config = backend, spec, config
        self._on_purge: OnPurge = on_purge or (lambda purged: None)
        self._lock = threading.RLock()
        letter = spec.subject[0].upper()
        self._prefix = f"{config.site}-{letter}" if config.site else letter
        self._read()
        self._refresh_averages()

    def __len__(self) -> int:
        """Return the number of identities."""
        return len(self._roster)

    def identities(self) -> list[Identity]:
        """Return everybody who is known, the last seen first."""
        with self._lock:
            found = [self._roster.describe(name) for name in self._roster]
        return sorted(found, key=lambda identity: -identity.last_seen_s)

    def identity(self, identity: str) -> Identity:
        """Return one; InputError when nobody is called that."""
        with self._lock:
            self._require(identity)
            return self._roster.describe(identity)

    def templates_of(self, identity: str) -> list[Record]:
        """Return the templates of ``identity``, the oldest first."""
        with self._lock:
            return list(self._backend.records(list(self._require(identity).times)))

    def candidates(
        self, embedding: Embedding, top: int, excluded: Collection[str] = ()
    ) -> list[Candidate]:
        """Return the identities most similar to ``embedding`` (E,), best first."""
        with self._lock:
            found = self._backend.search(embedding, SEARCH_LIMIT, excluded)
        templates: dict[str, list[Template]] = defaultdict(list)
        for template in found:
            templates[template.identity].append(template)
        candidates = [
            Candidate(name, float(np.mean([t.score for t in best[:top]])), best[0])
            for name, best in templates.items()
        ]
        return sorted(candidates, key=lambda candidate: -candidate.score)

    def new_identity(self) -> str:
        """Return a name that nobody has or ever had, such as P12 for a person.

        Its number is used up when a template is put under it.
        """
        with self._lock:
            return f"{self._prefix}{self._next}"

    def put(
        self, identity: str, embedding: Embedding, payload: Payload, point: str | None = None
    ) -> str:
        """Keep a template of ``identity``; with ``point``, in place of that one. Returns its id.

        A ``point`` that was moved to another identity meanwhile is replaced there; one that was
        deleted stays deleted. The oldest template of an identity that has too many goes, and, when
        the gallery is full, the identity that was not seen for longest.
        """
        with self._lock:
            owner = self._owner(identity, point)
            if owner is None:
                return str(point)
            point = point or str(uuid.uuid4())
            known = self._roster.get(owner, Known())
            times = {**known.times, point: time_of(payload)}
            dropped = list(times)[: -self._config.templates]
            changed = Known(
                {p: times[p] for p in times if p not in dropped}, known.name, known.aliases
            )
            gone = self._make_room(owner, len(changed.times) - len(known.times))
            space, precision = self._spec.embedding_space, self._spec.precision
            facts = {"embedding_space": space, "precision": precision}
            record = labelled(Record(point, embedding, {**payload, **facts}), owner, changed)
            self._write([record], {owner: changed, **gone})
            return point

    def rename(self, identity: str, name: str | None) -> Identity:
        """Give ``identity`` a name for people, or take it away."""
        with self._lock:
            known = self._require(identity)
            self._relabel({identity: Known(known.times, name or None, known.aliases)})
            return self._roster.describe(identity)

    def merge(self, identity: str, into: str) -> Identity:
        """Make ``identity`` part of ``into``, which keeps its name and the newest templates."""
        with self._lock:
            source, target = self._require(identity), self._require(into)
            if identity == into:
                raise InputError(f"{identity} cannot be merged into itself; name two identities")
            times = {**source.times, **target.times}
            ordered = sorted(times, key=times.__getitem__)
            kept = ordered[-self._config.templates :]
            aliases = dict.fromkeys([*target.aliases, identity, *source.aliases])
            name = target.name or source.name
            changed = Known({p: times[p] for p in kept}, name, tuple(aliases))
            self._relabel({into: changed, identity: None})
            return self._roster.describe(into)

    def split(self, identity: str, points: Collection[str]) -> Identity:
        """Give the templates ``points`` of ``identity`` to a new identity, which is returned."""
        with self._lock:
            known = self._require(identity)
            moved = known.only(points)
            stays = known.only(known.times.keys() - set(points))
            if moved is None or stays is None or set(points) - known.times.keys():
                raise InputError(
                    f"cannot split {identity}: name some of its templates, not all; it has "
                    f"{', '.join(known.times)}, given were {', '.join(points) or 'none'}"
                )
            name = self.new_identity()
            self._relabel({name: Known(moved.times), identity: stays})
            return self._roster.describe(name)

    def delete(self, identity: str) -> Purged:
        """Delete every template of ``identity``; nobody else will ever be called that."""
        with self._lock:
            return self._purge(identity, list(self._require(identity).times))

    def expire(self, now_s: float) -> list[Purged]:
        """Delete who was unseen for ``time_to_live_s``, and templates older than ``retention_s``.

        ``now_s`` is by the clock of the templates' `time_s`. Call it now and then.
        """
        with self._lock:
            if self._backend.shared:
                self._read()
            ages_s = [self._config.time_to_live_s, self._config.retention_s]
            limits = [-np.inf if age_s is None else now_s - age_s for age_s in ages_s]
            purged = [
                self._purge(identity, points)
                for identity in list(self._roster)
                if (points := self._roster.expired(identity, limits[0], limits[1]))
            ]
            self._backend.spare()
        return purged

    def contents(self) -> tuple[Facts, list[Record]]:
        """Return the facts of the gallery and all its templates."""
        with self._lock:
            points = [point for known in self._roster.values() for point in known.times]
            return self._backend.facts(), list(self._backend.records(points))

    def admit(self, records: Sequence[Record]) -> None:
        """Keep templates of another gallery as they are, with their identities and names."""
        with self._lock:
            held = {point for known in self._roster.values() for point in known.times}
            missing = {record.point: record for record in records if record.point not in held}
            incoming = Roster.read((r.point, r.payload) for r in missing.values())
            changed = {name: self._roster.joined(name, known) for name, known in incoming.items()}
            labelled_records = [
                labelled(missing[point], name, changed[name])
                for name, known in incoming.items()
                for point in known.times
            ]
            self._write(labelled_records, changed)

    def close(self) -> None:
        """Let go of the backend; everything is durable already."""
        with self._lock:
            self._backend.close()

    def _read(self) -> None:
        facts = self._backend.facts()
        self._roster = Roster.read(self._backend.payloads())
        if "embedding_space" not in facts and not self._roster:
            facts |= facts_of(self._spec)
            self._backend.write([], [], facts)
        check_facts(self._backend.place, facts, self._spec, self._config.mix_precisions)
        numbered = int(facts.get(self._counter, 1)), int(facts.get(FIRST, 1))
        self._next = max([*numbered, *map(self._after, self._roster)])

    @property
    def _counter(self) -> str:
        return f"next {self._prefix}"

    def _after(self, identity: str) -> int:
        """Return the number after that of ``identity``; 1 when it is not one of ours."""
        number = identity.removeprefix(self._prefix)
        return int(number) + 1 if number != identity and number.isdecimal() else 1

    def _require(self, identity: str) -> Known:
        if identity not in self._roster and self._backend.shared:
            self._read()
        if identity not in self._roster:
            raise InputError(
                f"gallery {self._backend.place} knows no {identity!r}; it knows "
                f"{len(self._roster)} identities, listed by runtime/manage_gallery.py list"
            )
        return self._roster[identity]

    def _owner(self, identity: str, point: str | None) -> str | None:
        """Return under whom a template is put; None when the one to replace was deleted."""
        if identity not in self._roster and self._backend.shared:
            self._read()
        return self._roster.current(identity) if point is None else self._roster.owner(point)

    def _make_room(self, beside: str, added: int) -> dict[str, None]:
        """Say who goes so that ``added`` templates of ``beside`` find room, and return them."""
        crowd = self._roster.crowd(self._config.capacity, added, beside)
        for identity in crowd:
            self._tell(identity, list(self._roster[identity].times))
        return dict.fromkeys(crowd)

    def _purge(self, identity: str, points: list[str]) -> Purged:
        purged = self._tell(identity, points)
        known = self._roster[identity]
        self._write([], {identity: known.only(known.times.keys() - set(points))}, purge=True)
        return purged

    def _tell(self, identity: str, points: list[str]) -> Purged:
        """Say what is about to be deleted."""
        known = self._roster[identity]
        payloads = [record.payload for record in self._backend.records(points)]
        purged = Purged(
            identity,
            known.aliases,
            len(points) == len(known.times),
            len(points),
            tuple(payload["event"] for payload in payloads if "event" in payload),
            tuple(path for payload in payloads for path in payload.get("snapshots", ())),
        )
        self._on_purge(purged)
        return purged

    def _relabel(self, changed: Mapping[str, Known | None]) -> None:
        """Write the templates of ``changed`` anew, with what their identities are called now."""
        records = [
            labelled(record, identity, known)
            for identity, known in changed.items()
            if known is not None
            for record in self._backend.records(list(known.times))
        ]
        self._write(records, changed)

    def _write(
        self,
        records: Sequence[Record],
        changed: Mapping[str, Known | None],
        *,
        purge: bool = False,
    ) -> None:
        """Write ``records`` and all that follows from ``changed``, then remember it."""
        before = [p for name in changed if name in self._roster for p in self._roster[name].times]
        after = {p for known in changed.values() if known is not None for p in known.times}
        averages, no_averages = self._averages(records, changed)
        following = max([self._next, *map(self._after, changed)])
        self._backend.write(
            [*records, *averages],
            [point for point in before if point not in after] + no_averages,
            {} if following == self._next else {self._counter: following},
            purge=purge,
        )
        self._roster.change(changed)
        self._next = following

    def _averages(
        self, records: Sequence[Record], changed: Mapping[str, Known | None]
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
                held = {record.point: record for record in self._backend.records(others)} | written
                averages.append(average_of(identity, [held[p] for p in known.times], newest))
        return averages, [average_point(name) for name, known in changed.items() if known is None]

    def _refresh_averages(self) -> None:
        """Make all averages anew when another weight was used before, or none."""
        newest = self._config.moving_average
        if self._backend.facts().get(MOVING_AVERAGE) == newest:
            return
        averages, _ = self._averages([], self._roster)
        none = [] if averages else [average_point(identity) for identity in self._roster]
        self._backend.write(averages, none, {MOVING_AVERAGE: newest})
