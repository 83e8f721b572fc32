"""Network cameras: RTSP and RTSPS, and MJPEG or any other live stream over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mambapro.cli import InputError
from runtime.config import SourceConfig
from runtime.sources.av_camera import AvCamera
from runtime.sources.camera import SLICE_S, Camera, Connect
from runtime.sources.uri import Uri

TRANSPORTS: Final = ("tcp", "udp")
# The rest of what FFmpeg would like to know of a stream costs half a second and is not needed.
QUICKLY: Final = {"fflags": "nobuffer", "fpsprobesize": "0", "analyzeduration": "500000"}
REORDER_US: Final = 200_000


def connector(uri: Uri, config: SourceConfig) -> Connect:
    """Return what opens the camera; InputError when an option makes no sense."""
    options = _rtsp_options(uri, config) if uri.scheme.startswith("rtsp") else _http_options(uri)
    # HTTP cannot go on after an interrupt: it gets its whole timeout in one piece.
    slice_s = SLICE_S if uri.scheme.startswith("rtsp") else config.read_timeout_s

    def connect() -> Camera:
        return AvCamera(
            uri.target,
            options,
            open_s=config.connect_timeout_s,
            read_s=config.read_timeout_s,
            slice_s=slice_s,
        )

    return connect


def _rtsp_options(uri: Uri, config: SourceConfig) -> Mapping[str, str]:
    asked = uri.options.get("transport")
    if asked is not None and asked not in TRANSPORTS:
        raise InputError(f"cannot open {uri.shown}: transport must be tcp or udp, got {asked!r}")
    if uri.scheme == "rtsps" and asked == "udp":
        raise InputError(f"cannot open {uri.shown}: rtsps comes over tcp, not udp")
    transport = "tcp" if uri.scheme == "rtsps" else asked or config.transport
    return {
        **QUICKLY,
        "rtsp_transport": transport,
        "allowed_media_types": "video",
        "max_delay": str(REORDER_US),
    }


def _http_options(uri: Uri) -> Mapping[str, str]:
    if uri.options:
        raise InputError(f"cannot open {uri.shown}: transport is an option of rtsp alone")
    return {"fflags": "nobuffer"}
