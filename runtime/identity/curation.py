"""What an operator does to the galleries of a run while it decides.

Who reads asks the gallery, which lets one thread in at a time. Who changes something has it done by
the deciding thread between two instants: nobody is deleted or merged in the middle of a decision,
and no number is given twice. See docs/decisions/0047.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from mambapro.cli import NotThereError
from mambapro.contract import UNKNOWN_CAMERA, Subject
from runtime.engines import Engine
from runtime.gallery import Gallery, Identity, Purged, Record, Template
from runtime.identity.embedding import Crops, embed
from runtime.identity.errands import Errands
from runtime.identity.identification import Identifier
from runtime.identity.recognition import Recogniser

T = TypeVar("T")


@dataclass(frozen=True)
class Desk:
    """All that is needed to look after the identities of one subject."""

    engine: Engine
    gallery: Gallery
    identifier: Identifier


@dataclass(frozen=True)
class Match:
    """Somebody who resembles a triplet that was searched for."""

    identity: Identity
    """Who."""
    score: float
    """Cosine similarity; the mean of the best templates if `match.top` says so."""
    threshold: float
    """Smallest score of somebody known."""
    template: Template
    """The most similar template."""

    @property
    def accepted(self) -> bool:
        """Return whether the stream would take the triplet for this identity, or a better one."""
        return self.score >= self.threshold


class Curator:
    """Any thread may call. BusyError when the deciding thread has no time for a change."""

    def __init__(
        self, desks: Mapping[Subject, Desk], recogniser: Recogniser, errands: Errands
    ) -> None:
        """Have changes done by whoever runs ``errands``, and ``recogniser`` take them over."""
        self._desks, self._recogniser, self._errands = desks, recogniser, errands

    @property
    def subjects(self) -> list[Subject]:
        """Return whose galleries there are."""
        return list(self._desks)

    def identities(self, subject: Subject) -> list[Identity]:
        """Return everybody of ``subject`` who is known, the last seen first; none without model."""
        return self._desks[subject].gallery.identities() if subject in self._desks else []

    def identity(self, subject: Subject, identity: str) -> tuple[Identity, list[Record]]:
        """Return one and their templates, the oldest first; NotThereError when there is none."""
        gallery = self._gallery(subject)
        return gallery.identity(identity), gallery.templates_of(identity)

    def name(self, identity: str) -> str | None:
        """Return what people call ``identity``; None when they do not, or nobody is called that."""
        found = (desk.gallery.find(identity) for desk in self._desks.values())
        return next((known.name for known in found if known is not None), None)

    def search(
        self, subject: Subject, crops: Crops, most: int, camera: int = UNKNOWN_CAMERA
    ) -> list[Match]:
        """Return whom ``crops`` resemble, up to ``most``, best first; nothing is kept of them."""
        desk = self._desk(subject)
        (embedding,) = embed(desk.engine, [crops], [camera])
        matches = []
        for found in desk.identifier.resembling(embedding, most):
            identity = desk.gallery.find(found.identity)
            if identity is not None:  # deleted since
                threshold = desk.identifier.required(crops, found)
                matches.append(Match(identity, found.score, threshold, found.template))
        return matches

    def rename(self, subject: Subject, identity: str, name: str | None) -> Identity:
        """Give ``identity`` a name for people, or take it away."""
        return self._change(subject, lambda gallery: gallery.rename(identity, name))

    def merge(self, subject: Subject, identity: str, into: str) -> Identity:
        """Make ``identity`` part of ``into``, which is returned."""
        return self._change(subject, lambda gallery: gallery.merge(identity, into))

    def split(self, subject: Subject, identity: str, points: Collection[str]) -> Identity:
        """Give the templates ``points`` of ``identity`` to somebody new, who is returned."""
        return self._change(subject, lambda gallery: gallery.split(identity, points))

    def delete(self, subject: Subject, identity: str) -> Purged:
        """Delete ``identity``, and with it its events and snapshots."""
        return self._change(subject, lambda gallery: gallery.delete(identity))

    def _change(self, subject: Subject, change: Callable[[Gallery], T]) -> T:
        gallery = self._gallery(subject)

        def work() -> T:
            try:
                return change(gallery)
            finally:
                self._recogniser.correct(subject)

        return self._errands.ask(work)

    def _gallery(self, subject: Subject) -> Gallery:
        return self._desk(subject).gallery

    def _desk(self, subject: Subject) -> Desk:
        if subject not in self._desks:
            raise NotThereError(
                f"{subject}s have no gallery: no model of theirs runs (models.{subject})"
            )
        return self._desks[subject]
