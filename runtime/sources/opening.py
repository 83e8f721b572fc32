"""From a URI to its source."""

from __future__ import annotations

from mambapro.cli import InputError
from runtime.config import SourceConfig
from runtime.sources import pattern
from runtime.sources.file import FileSource
from runtime.sources.live import LiveSource
from runtime.sources.reading import Source
from runtime.sources.uri import parse


def open_source(uri: str, config: SourceConfig | None = None) -> Source:
    """Open the camera at ``uri``; InputError when it can never give a picture.

    A live source connects by itself and goes on trying: a camera that is away is no error.
    """
    config = config or SourceConfig()
    parts = parse(uri)
    if parts.scheme == "file":
        return FileSource(parts.target, config.queue_frames)
    if parts.scheme == "pattern":
        return LiveSource(parts.shown, pattern.connector(parts), config)
    raise InputError(f"cannot open {parts.shown}: {parts.scheme}: is not served yet")
