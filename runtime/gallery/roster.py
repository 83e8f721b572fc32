"""What is kept in memory of everybody who is known: names, templates and their times."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from mambapro.cli import InputError
from runtime.gallery.records import AVERAGE, Identity, Payload, Record


@dataclass(frozen=True)
class Known:
    """Somebody who is known."""

    times: dict[str, float] = field(default_factory=dict)
    """Time of each template, s, by point; in the order in which they will go."""
    name: str | None = None
    """What people call them."""
    aliases: tuple[str, ...] = ()
    """Who was merged into them."""

    @property
    def last_seen_s(self) -> float:
        """Return the time of the newest template, s."""
        return max(self.times.values())

    def labels(self) -> Payload:
        """Return what the payload of each template says of them."""
        labels = {"name": self.name, "aliases": list(self.aliases)}
        return {key: value for key, value in labels.items() if value}

    def only(self, points: Collection[str]) -> Known | None:
        """Return them with no more templates than ``points``; None when none is left."""
        times = {point: time_s for point, time_s in self.times.items() if point in points}
        return Known(times, self.name, self.aliases) if times else None

    def with_template(self, point: str, time_s: float, most: int) -> Known:
        """Return them with one template more, or another time of one; the oldest go."""
        times = {**self.times, point: time_s}
        kept = list(times)[-most:]
        return Known({point: times[point] for point in kept}, self.name, self.aliases)

    def joined(self, other: Known, most: int) -> Known:
        """Return them with the newest templates and the aliases of both; their name goes first."""
        times = {**other.times, **self.times}
        kept = sorted(times, key=times.__getitem__)[-most:]
        aliases = dict.fromkeys([*self.aliases, *other.aliases])
        name = self.name or other.name
        return Known({point: times[point] for point in kept}, name, tuple(aliases))


class Roster(dict[str, Known]):
    """Everybody, by identity."""

    def __init__(self) -> None:
        """Know nobody."""
        super().__init__()
        self._rigs: dict[str, str] = {}  # by point

    @classmethod
    def read(cls, payloads: Iterable[tuple[str, Payload]]) -> Roster:
        """Return whom ``payloads`` of points speak of, the oldest template first."""
        found = [(point, payload) for point, payload in payloads if AVERAGE not in payload]
        roster = cls()
        for point, payload in sorted(found, key=lambda pair: time_of(pair[1])):
            identity = str(payload["identity"])
            roster._see(point, payload)
            times = roster[identity].times if identity in roster else {}
            times[point] = time_of(payload)
            roster[identity] = Known(times, payload.get("name"), tuple(payload.get("aliases", ())))
        return roster

    def change(self, changed: Mapping[str, Known | None], records: Iterable[Record]) -> None:
        """Take over ``changed``, of which ``records`` were written; None is gone."""
        for record in records:
            self._see(record.point, record.payload)
        held = {point for known in changed.values() if known for point in known.times}
        for name in changed.keys() & self.keys():
            for point in self[name].times.keys() - held:
                self._rigs.pop(point, None)
        for identity, known in changed.items():
            if known is None:
                self.pop(identity, None)
            else:
                self[identity] = known

    def points(self) -> set[str]:
        """Return all templates."""
        return {point for known in self.values() for point in known.times}

    def admitted(self, incoming: Roster, most: int) -> dict[str, Known]:
        """Return the identities here that change when those of another gallery are added."""
        changed: dict[str, Known] = {}
        held = self.points()
        for name, known in incoming.items():
            if name in self and not known.times.keys() & self[name].times.keys():
                raise InputError(
                    f"{name} is somebody else in this gallery; import into an empty one, or give "
                    "the one that writes the file a gallery.site of its own"
                )
            missing = known.only(known.times.keys() - held)
            owner = self.current(name)
            if missing is not None:
                before = changed.get(owner, self.get(owner))
                changed[owner] = missing if before is None else before.joined(missing, most)
        return changed

    def owner(self, point: str) -> str | None:
        """Return whose template ``point`` is."""
        return next((name for name, known in self.items() if point in known.times), None)

    def current(self, identity: str) -> str:
        """Return into whom ``identity`` was merged, if it was, else itself."""
        if identity in self:
            return identity
        merged = (name for name, known in self.items() if identity in known.aliases)
        return next(merged, identity)

    def crowd(self, capacity: int, added: int, beside: str) -> list[str]:
        """Return who must go so that ``added`` templates find room: the longest unseen first."""
        excess = sum(len(known.times) for known in self.values()) + added - capacity
        crowd: list[str] = []
        if excess > 0:
            for name in sorted(self, key=lambda name: self[name].last_seen_s):
                if excess > 0 and name != beside:
                    crowd.append(name)
                    excess -= len(self[name].times)
        return crowd

    def expired(self, identity: str, unseen_since_s: float, made_before_s: float) -> list[str]:
        """Return the templates that are too old: all, if nobody saw ``identity`` since."""
        known = self[identity]
        if known.last_seen_s < unseen_since_s:
            return list(known.times)
        return [point for point, time_s in known.times.items() if time_s < made_before_s]

    def describe(self, identity: str) -> Identity:
        """Return ``identity`` as others see it."""
        known = self[identity]
        rigs = {self._rigs[point] for point in known.times if point in self._rigs}
        return Identity(
            identity=identity,
            name=known.name,
            aliases=known.aliases,
            templates=len(known.times),
            first_seen_s=min(known.times.values()),
            last_seen_s=known.last_seen_s,
            rigs=tuple(sorted(rigs)),
        )

    def _see(self, point: str, payload: Payload) -> None:
        if "rig" in payload:
            self._rigs[point] = str(payload["rig"])


def time_of(payload: Payload) -> float:
    """Return when a template was seen, s."""
    return float(payload.get("time_s", 0.0))


def labelled(record: Record, identity: str, known: Known) -> Record:
    """Return ``record`` as one of ``identity``."""
    others = {k: v for k, v in record.payload.items() if k not in ("name", "aliases")}
    payload = {**others, "identity": identity, **known.labels()}
    return Record(record.point, record.embedding, payload)
