"""Where identities are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mambapro.cli import InputError


@dataclass(frozen=True)
class GalleryConfig:
    """Where identities are kept."""

    folder: str = "gallery"
    """Folder; a relative path starts at the output folder."""
    keep: bool | None = None
    """Go on with the identities of earlier runs; none does so for live cameras, while a run on
    clips starts with none."""
    mix_precisions: bool = False
    """Allow embeddings of float32, float16 and INT8 models side by side."""
    templates: int = 20
    """Most templates of an identity; the oldest goes first."""
    capacity: int = 20000
    """Most templates in all; beyond, the identity that was not seen for longest goes."""
    time_to_live_s: float | None = None
    """An identity that was not seen for this long is deleted, s; none keeps it."""
    retention_s: float | None = None
    """A template older than this is deleted, s, even if its identity is seen; none keeps it."""
    moving_average: float | None = None
    """Keep a moving average of each identity's templates as one more template, in which the newest
    has this weight, 0 to 1; none keeps no average."""
    on_damage: Literal["stop", "salvage"] = "stop"
    """What to do about a damaged gallery: stop with an error, or set it aside and go on with what
    can be read of it."""
    site: str = ""
    """Begins the name of each new identity (north-P12): set it where sites share a server."""
    url: str | None = None
    """Address of a Qdrant server or cluster, https://host:6333; none keeps the gallery in
    ``folder``."""
    api_key_variable: str = "QDRANT_API_KEY"
    """Environment variable that holds the server's API key; unset or empty sends none."""
    collection: str = "mambapro"
    """Collections on the server are called this, a dash and the subject."""
    timeout_s: float = 5.0
    """Longest wait for an answer of the server, s."""
    retries: int = 3
    """Further attempts after the server could not be reached or failed."""

    def __post_init__(self) -> None:
        if self.templates < 1 or self.capacity < self.templates:
            raise InputError(
                "gallery.templates must be at least 1 and gallery.capacity at least as many, "
                f"got {self.templates} and {self.capacity}"
            )
        if self.moving_average is not None and not 0.0 < self.moving_average <= 1.0:
            raise InputError(
                "gallery.moving_average must be above 0 and at most 1, or none, "
                f"got {self.moving_average}"
            )
