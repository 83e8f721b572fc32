"""USB and CSI cameras of the machine: ``v4l2:///dev/video0?size=640x360&fps=25``, ``usb:0``."""

from __future__ import annotations

from mambapro.cli import InputError
from runtime.config import SourceConfig
from runtime.sources.av_camera import AvCamera
from runtime.sources.camera import Camera, Connect
from runtime.sources.uri import Uri, fps_option, size_option


def connector(uri: Uri, config: SourceConfig) -> Connect:
    """Return what opens the device; InputError when the URI names none or an option is wrong."""
    if not uri.target.startswith("/"):
        raise InputError(f"cannot open {uri.shown}: it names no device, as in v4l2:///dev/video0")
    size, fps = size_option(uri), fps_option(uri)
    options = {"fflags": "nobuffer"}
    if size is not None:
        options["video_size"] = f"{size[0]}x{size[1]}"
    if fps is not None:
        options["framerate"] = f"{fps:g}"

    def connect() -> Camera:
        return AvCamera(
            uri.target,
            options,
            open_s=config.connect_timeout_s,
            read_s=config.read_timeout_s,
            slice_s=config.read_timeout_s,
            format_name="v4l2",
        )

    return connect
