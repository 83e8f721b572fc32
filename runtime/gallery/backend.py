"""Where records are kept and searched: the few calls that an engine of a gallery must have."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from runtime.gallery.records import Embedding, Payload, Record, Template

Facts = dict[str, Any]
"""JSON-able: the embedding space, its precision, and the numbers of identities given so far."""

FIRST: Final = "first"
"""The fact that says with which number identities begin, when it is not 1."""


class Backend(Protocol):
    """Keeps records durably: what a call of `write` did is there after any crash."""

    place: str
    """Folder or address, for messages; holds no credentials."""
    shared: bool
    """Others may write to it at the same time."""

    def facts(self) -> Facts:
        """Return the facts of the gallery; empty when it is new."""

    def payloads(self) -> Iterable[tuple[str, Payload]]:
        """Return point and payload of every record, the oldest first."""

    def records(self, points: Sequence[str] | None = None) -> Iterable[Record]:
        """Return all records, or those of ``points`` in that order; unknown points are left out."""

    def write(
        self,
        upserts: Sequence[Record],
        deletes: Sequence[str],
        facts: Mapping[str, Any],
        *,
        purge: bool = False,
    ) -> None:
        """Keep ``upserts``, remove ``deletes`` and change ``facts``; OSError when that fails.

        With ``purge``, what is removed stays in no spare copy either.
        """

    def search(self, embedding: Embedding, limit: int, excluded: Collection[str]) -> list[Template]:
        """Return the most similar records whose identity is not ``excluded``, best first."""

    def spare(self) -> None:
        """See to it that there is a copy to fall back on; called from time to time."""

    def close(self) -> None:
        """Let go of it."""
