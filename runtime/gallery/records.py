"""What a gallery holds and returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Embedding = npt.NDArray[np.float32]
Payload = dict[str, Any]

AVERAGE: Final = "average"
"""Key of the payload that marks the moving average of an identity's templates."""


@dataclass(frozen=True)
class Record:
    """One embedding as it is kept."""

    point: str
    """Id of the point, a UUID."""
    embedding: Embedding
    """(E,) float32."""
    payload: Payload
    """identity, time_s, precision, embedding_space; name and aliases of the identity, if any;
    and what the caller of put gave: rig, track, mask."""


@dataclass(frozen=True)
class Template:
    """One embedding of an identity, as a search found it."""

    point: str
    """Id of the point, a UUID."""
    identity: str
    """Whose it is."""
    score: float
    """Cosine similarity to the query."""
    payload: Payload
    """The payload of its record."""


@dataclass(frozen=True)
class Candidate:
    """An identity that resembles the query."""

    identity: str
    """Who."""
    score: float
    """Mean cosine similarity of ``templates``."""
    templates: tuple[Template, ...]
    """Its most similar templates, best first; at least one."""

    @property
    def template(self) -> Template:
        """The most similar template."""
        return self.templates[0]


@dataclass(frozen=True)
class Identity:
    """Somebody the gallery knows."""

    identity: str
    """The permanent name, such as P12; never given to anybody else."""
    name: str | None
    """What people call them; None when nobody named them."""
    aliases: tuple[str, ...]
    """Identities that were merged into this one; earlier events bear them."""
    templates: int
    """Embeddings that are kept."""
    first_seen_s: float
    """Time of the oldest template, s."""
    last_seen_s: float
    """Time of the newest template, s."""
    rigs: tuple[str, ...]
    """Rigs that took the templates."""


@dataclass(frozen=True)
class Purged:
    """What is deleted of an identity, so that its events and snapshots can be deleted as well."""

    identity: str
    """Whose."""
    aliases: tuple[str, ...]
    """Identities that were merged into it: their events and snapshots go, too."""
    whole: bool
    """The identity is gone; off, some of its templates grew too old and the rest stay."""
    templates: int
    """Embeddings that are deleted."""
