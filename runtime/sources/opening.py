"""From a URI to its source."""

from __future__ import annotations

from pathlib import Path

from mambapro.cli import InputError
from runtime.config import SourceConfig
from runtime.sources import gstreamer, network, pattern, v4l2
from runtime.sources.camera import Connect
from runtime.sources.file import FileSource
from runtime.sources.folder import FolderSource
from runtime.sources.live import LiveSource
from runtime.sources.reading import Source
from runtime.sources.uri import Uri, parse


def open_source(uri: str, config: SourceConfig | None = None) -> Source:
    """Open the camera at ``uri``; InputError when it can never give a picture.

    A live source connects by itself and goes on trying: a camera that is away is no error.
    """
    config = config or SourceConfig()
    parts = parse(uri)
    if parts.scheme != "file":
        return LiveSource(parts.shown, _connector(parts, config), config)
    if Path(parts.target).is_dir():
        return FolderSource(parts.target, config.folder_fps, config.queue_frames)
    return FileSource(parts.target, config.queue_frames)


def check_live(uri: str, config: SourceConfig) -> None:
    """Raise InputError unless ``uri`` names a live camera that can be tried; nothing is tried."""
    parts = parse(uri)
    if parts.scheme == "file":
        raise InputError(f"{parts.shown} is a clip, not a live camera")
    _connector(parts, config)


def _connector(uri: Uri, config: SourceConfig) -> Connect:
    if uri.scheme == "pattern":
        return pattern.connector(uri)
    if uri.scheme == "v4l2":
        return v4l2.connector(uri, config)
    if uri.scheme == "gst":
        return gstreamer.connector(uri, config)
    return network.connector(uri, config)
