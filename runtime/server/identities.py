"""Who is known: look, name, merge, split, delete."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query

from mambapro.cli import NotThereError
from mambapro.contract import MODALITIES, SUBJECTS, Modality, Subject
from runtime.gallery import Identity, Purged, Record
from runtime.operation.health import LiveView
from runtime.server.answers import refusals
from runtime.server.audit import Audit
from runtime.server.visitors import Visitor

LONGEST_NAME: Final = 100
MOST_TEMPLATES: Final = 1000

Name = Annotated[str, Path(max_length=LONGEST_NAME, description="Permanent name, such as P12.")]


@dataclass(frozen=True)
class Person:
    """Somebody, or some vehicle, that is known."""

    id: str
    """Permanent name, such as P12; never given to anybody else."""
    subject: Subject
    """Person or vehicle."""
    name: str | None
    """What people call them."""
    aliases: list[str]
    """Who was merged into them; earlier events bear these names."""
    templates: int
    """Sightings that are kept."""
    first_seen: float
    """When the oldest of them was, Unix seconds."""
    last_seen: float
    """When the newest was, Unix seconds."""
    rigs: list[str]
    """Where they were."""


@dataclass(frozen=True)
class TemplateOf:
    """A sighting that is kept of somebody."""

    template: str
    """Its id, by which it is split off."""
    rig: str | None
    """Where."""
    track: int | None
    """Number of the track there."""
    time_s: float
    """When, Unix seconds."""
    modalities: list[Modality]
    """Cameras that saw it."""
    precision: str
    """Precision of the model that embedded it."""


@dataclass(frozen=True)
class PersonAndTemplates(Person):
    """Somebody and what is kept of them."""

    records: list[TemplateOf]
    """The templates, the oldest first."""


@dataclass(frozen=True)
class Renaming:
    """What somebody is called from now on."""

    name: Annotated[str | None, Query(max_length=LONGEST_NAME)]
    """For people; null or empty takes it away."""


@dataclass(frozen=True)
class Merging:
    """Into whom somebody is merged."""

    into: Annotated[str, Query(max_length=LONGEST_NAME)]
    """The identity that remains."""


@dataclass(frozen=True)
class Splitting:
    """Which templates become somebody new."""

    templates: Annotated[list[str], Query(min_length=1, max_length=MOST_TEMPLATES)]
    """Some of the identity's, not all."""


@dataclass(frozen=True)
class Deleted:
    """What is gone; events and snapshots follow within seconds."""

    id: str
    """Who."""
    aliases: list[str]
    """Whose events and snapshots go, too."""
    templates: int
    """How many there were."""


def identity_routes(view: LiveView, audit: Audit) -> APIRouter:
    """Return the routes; ``audit`` notes who changed what."""
    router = APIRouter(prefix="/api/identities")
    curator = view.curator

    @router.get("", responses=refusals(404, 422))
    def identities(
        subject: Subject | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[str | None, Query(max_length=LONGEST_NAME)] = None,
    ) -> list[Person]:
        """Return who is known, the last seen first; ``after`` the last one of the answer before."""
        found = [
            _person(s, identity)
            for s in ([subject] if subject else SUBJECTS)
            for identity in curator.identities(s)
        ]
        found.sort(key=lambda person: -person.last_seen)
        rest = iter(found)
        if after is not None and not any(person.id == after for person in rest):
            raise NotThereError(f"nobody is called {after!r} any more; begin without after")
        return list(islice(rest, limit))

    one = refusals(404, 422)
    change = refusals(400, 404, 408, 413, 422, 503)

    @router.get("/{subject}/{identity}", responses=one)
    def identity(subject: Subject, identity: Name) -> PersonAndTemplates:
        """Return one, with their templates."""
        found, records = curator.identity(subject, identity)
        person = _person(subject, found)
        return PersonAndTemplates(**vars(person), records=[_template(r) for r in records])

    @router.patch("/{subject}/{identity}", responses=change)
    def rename(who: Visitor, subject: Subject, identity: Name, to: Renaming) -> Person:
        """Give one a name for people, or take it away."""
        with audit.noted(who, "rename", subject=subject, identity=identity):
            return _person(subject, curator.rename(subject, identity, to.name))

    @router.post("/{subject}/{identity}/merge", responses=change)
    def merge(who: Visitor, subject: Subject, identity: Name, to: Merging) -> Person:
        """Make one part of another, which is returned; nobody is ever called so again."""
        with audit.noted(who, "merge", subject=subject, identity=identity, into=to.into):
            return _person(subject, curator.merge(subject, identity, to.into))

    @router.post("/{subject}/{identity}/split", responses=change)
    def split(who: Visitor, subject: Subject, identity: Name, of: Splitting) -> Person:
        """Make some templates of one somebody new, who is returned."""
        with audit.noted(who, "split", subject=subject, identity=identity) as noted:
            person = _person(subject, curator.split(subject, identity, of.templates))
            noted["new"] = person.id
            return person

    @router.delete("/{subject}/{identity}", responses=change)
    def delete(who: Visitor, subject: Subject, identity: Name) -> Deleted:
        """Delete one for good, with events and snapshots; docs/gallery.md says what stays."""
        with audit.noted(who, "delete", subject=subject, identity=identity) as noted:
            purged = curator.delete(subject, identity)
            noted["aliases"], noted["templates"] = list(purged.aliases), purged.templates
            return _deleted(purged)

    return router


def _person(subject: Subject, identity: Identity) -> Person:
    return Person(
        id=identity.identity,
        subject=subject,
        name=identity.name,
        aliases=list(identity.aliases),
        templates=identity.templates,
        first_seen=identity.first_seen_s,
        last_seen=identity.last_seen_s,
        rigs=list(identity.rigs),
    )


def _template(record: Record) -> TemplateOf:
    payload: dict[str, Any] = record.payload
    mask = payload.get("mask", [])
    return TemplateOf(
        template=record.point,
        rig=payload.get("rig"),
        track=payload.get("track"),
        time_s=payload.get("time_s", 0.0),
        modalities=[m for m, there in zip(MODALITIES, mask, strict=False) if there],
        precision=payload["precision"],
    )


def _deleted(purged: Purged) -> Deleted:
    return Deleted(purged.identity, list(purged.aliases), purged.templates)
