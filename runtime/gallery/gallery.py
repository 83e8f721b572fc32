"""Who is known: identities of one embedding space, with several templates each.

A template is the fused embedding of one sighting. An identity keeps the newest few, and, if that is
asked for, their moving average as one more. Whatever a call changes is durable when it returns.
"""

from __future__ import annotations

import threading
import uuid
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Final

import numpy as np

from mambapro.cli import InputError
from mambapro.spec import ModelSpec
from runtime.config import GalleryConfig
from runtime.gallery.backend import Backend, Facts
from runtime.gallery.keeper import Keeper, OnPurge
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

        ``on_purge`` is called with what is about to be deleted of an identity, whoever asked for
        that: when it raises, nothing is deleted, so no snapshot outlives the embeddings.
        Raises InputError when the gallery holds embeddings of another model, or of another
        precision and ``mix_precisions`` is off.
        """
        self._config = config
        self._keeper = Keeper(backend, spec, config, on_purge)
        self._lock = threading.RLock()

    def __len__(self) -> int:
        """Return the number of identities."""
        return len(self._keeper.roster)

    @property
    def most_templates(self) -> int:
        """Return how many templates an identity may have, its moving average included."""
        return self._config.templates + (self._config.moving_average is not None)

    def identities(self) -> list[Identity]:
        """Return everybody who is known, the last seen first."""
        with self._lock:
            roster = self._keeper.roster
            found = [roster.describe(name) for name in roster]
        return sorted(found, key=lambda identity: -identity.last_seen_s)

    def identity(self, identity: str) -> Identity:
        """Return one; NotThereError when nobody is called that."""
        with self._lock:
            self._keeper.require(identity)
            return self._keeper.roster.describe(identity)

    def find(self, identity: str) -> Identity | None:
        """Return one; None when nobody is called that."""
        with self._lock:
            roster = self._keeper.roster
            return roster.describe(identity) if identity in roster else None

    def templates_of(self, identity: str) -> list[Record]:
        """Return the templates of ``identity``, the oldest first."""
        with self._lock:
            points = list(self._keeper.require(identity).times)
            return list(self._keeper.backend.records(points))

    def whose(self, identity: str, point: str | None) -> str | None:
        """Return who a sighting of ``identity`` is, after all that was merged, split and deleted.

        ``point`` is its template, if it has one; None is nobody.
        """
        with self._lock:
            roster = self._keeper.roster
            owner = roster.current(identity) if point is None else roster.owner(point)
            owner = owner or roster.current(identity)  # the template was too old to be kept
            return owner if owner in roster else None

    def candidates(
        self,
        embedding: Embedding,
        top: int,
        excluded: Collection[str] = (),
        limit: int = SEARCH_LIMIT,
    ) -> list[Candidate]:
        """Return the identities most similar to ``embedding`` (E,), best first.

        They are those of the ``limit`` templates most similar to it.
        """
        with self._lock:
            found = self._keeper.backend.search(embedding, limit, excluded)
        templates: dict[str, list[Template]] = defaultdict(list)
        for template in found:
            templates[template.identity].append(template)
        best = {name: tuple(group[:top]) for name, group in templates.items()}
        candidates = [
            Candidate(name, float(np.mean([t.score for t in group])), group)
            for name, group in best.items()
        ]
        return sorted(candidates, key=lambda candidate: -candidate.score)

    def new_identity(self) -> str:
        """Return a name that nobody has or ever had, such as P12 for a person.

        Its number is used up when a template is put under it.
        """
        with self._lock:
            return self._keeper.new_identity()

    def put(
        self, identity: str, embedding: Embedding, payload: Payload, point: str | None = None
    ) -> str:
        """Keep a template of ``identity``; with ``point``, in place of that one. Returns its id.

        A ``point`` that was moved to another identity meanwhile is replaced there; one that was
        deleted stays deleted. The oldest template of an identity that has too many goes, and, when
        the gallery is full, the identity that was not seen for longest. OSError when it cannot be
        kept: then nothing has changed.
        """
        with self._lock:
            keeper = self._keeper
            keeper.look_for(identity)
            roster = keeper.roster
            owner = roster.current(identity) if point is None else roster.owner(point)
            if owner is None:
                return str(point)
            point = point or str(uuid.uuid4())
            known = roster.get(owner, Known())
            changed = known.with_template(point, time_of(payload), self._config.templates)
            gone = self._make_room(owner, len(changed.times) - len(known.times))
            record = keeper.record(point, owner, changed, embedding, payload)
            keeper.write([record], {owner: changed, **gone})
            return point

    def rename(self, identity: str, name: str | None) -> Identity:
        """Give ``identity`` a name for people, or take it away."""
        with self._lock:
            known = self._keeper.require(identity)
            self._keeper.relabel({identity: Known(known.times, name or None, known.aliases)})
            return self._keeper.roster.describe(identity)

    def merge(self, identity: str, into: str) -> Identity:
        """Make ``identity`` part of ``into``, which keeps its name and the newest templates."""
        with self._lock:
            source, target = self._keeper.require(identity), self._keeper.require(into)
            if identity == into:
                raise InputError(f"{identity} cannot be merged into itself; name two identities")
            merged = Known(source.times, source.name, (identity, *source.aliases))
            changed = target.joined(merged, self._config.templates)
            self._keeper.relabel({into: changed, identity: None})
            return self._keeper.roster.describe(into)

    def split(self, identity: str, points: Collection[str]) -> Identity:
        """Give the templates ``points`` of ``identity`` to a new identity, which is returned."""
        with self._lock:
            known = self._keeper.require(identity)
            moved = known.only(points)
            stays = known.only(known.times.keys() - set(points))
            if moved is None or stays is None or set(points) - known.times.keys():
                raise InputError(
                    f"cannot split {identity}: name some of its templates, not all; it has "
                    f"{', '.join(known.times)}, given were {', '.join(points) or 'none'}"
                )
            name = self._keeper.new_identity()
            self._keeper.relabel({name: Known(moved.times), identity: stays})
            return self._keeper.roster.describe(name)

    def delete(self, identity: str) -> Purged:
        """Delete every template of ``identity``; nobody else will ever be called that."""
        with self._lock:
            return self._keeper.purge(identity, list(self._keeper.require(identity).times))

    def expire(self, now_s: float) -> list[Purged]:
        """Delete who was unseen for ``time_to_live_s``, and templates older than ``retention_s``.

        ``now_s`` is by the clock of the templates' `time_s`. Call it now and then: it also makes
        the daily spare copy.
        """
        with self._lock:
            keeper = self._keeper
            if keeper.backend.shared:
                keeper.read()
            ages_s = self._config.time_to_live_s, self._config.retention_s
            unseen_s, made_s = (-np.inf if age_s is None else now_s - age_s for age_s in ages_s)
            purged = [
                keeper.purge(identity, points)
                for identity in list(keeper.roster)
                if (points := keeper.roster.expired(identity, unseen_s, made_s))
            ]
            keeper.backend.spare()
        return purged

    def contents(self) -> tuple[Facts, list[Record]]:
        """Return the facts of the gallery and all its templates."""
        with self._lock:
            points = [point for known in self._keeper.roster.values() for point in known.times]
            return self._keeper.backend.facts(), list(self._keeper.backend.records(points))

    def admit(self, facts: Facts, records: Sequence[Record]) -> int:
        """Keep those ``contents`` of another gallery that this one has not; return their number.

        An identity is that of the same name here when they share a template. Raises InputError
        when a name means somebody else here, or when there is no room.
        """
        with self._lock:
            keeper = self._keeper
            incoming = Roster.read((record.point, record.payload) for record in records)
            changed = keeper.roster.admitted(incoming, self._config.templates)
            added = {p for known in changed.values() for p in known.times} - keeper.roster.points()
            if len(keeper.roster.points() | added) > self._config.capacity:
                raise InputError(
                    f"{len(added)} templates more than the {len(keeper.roster.points())} held are "
                    f"above gallery.capacity={self._config.capacity}; raise it"
                )
            owners = {point: name for name, known in changed.items() for point in known.times}
            new = [
                labelled(record, owners[record.point], changed[owners[record.point]])
                for record in records
                if record.point in added
            ]
            keeper.write(new, changed, following=int(facts.get(keeper.counter, 1)))
            return len(new)

    def close(self) -> None:
        """Let go of the backend; everything is durable already."""
        with self._lock:
            self._keeper.backend.close()

    def _make_room(self, beside: str, added: int) -> dict[str, None]:
        """Say who goes so that ``added`` templates of ``beside`` find room, and return them."""
        crowd = self._keeper.roster.crowd(self._config.capacity, added, beside)
        for identity in crowd:
            self._keeper.tell(identity, list(self._keeper.roster[identity].times))
        return dict.fromkeys(crowd)
