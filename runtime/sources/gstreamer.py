"""GStreamer pipelines through OpenCV: ``gst:PIPELINE``, which ends in BGR and an appsink.

This is the way to a Jetson's hardware decoder and CSI cameras, as in
``gst:rtspsrc location=rtsp://camera/1 ! rtph264depay ! h264parse ! nvv4l2decoder ! nvvidconv !
video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! appsink drop=1``.
Where OpenCV knows no timeout of reading (4.6 does not), ``watchdog timeout=5000`` before the
appsink ends a pipeline that has stopped.
"""

from __future__ import annotations

import re
import time

import cv2
import numpy as np

from mambapro.cli import InputError
from runtime.config import SourceConfig
from runtime.sources.camera import Camera, CameraLost, Connect, Shot
from runtime.sources.uri import Uri


class GstCamera:
    """A running pipeline; its times are arrivals, as OpenCV tells no time stamps of pictures."""

    def __init__(self, pipeline: str, config: SourceConfig) -> None:
        """Start ``pipeline``; CameraLost when that fails."""
        self.damaged = 0
        self._read_s = config.read_timeout_s
        # OpenCV 4.6 refuses to open with a timeout that it does not know; setting one is harmless.
        self._capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
        if not self._capture.isOpened():
            raise CameraLost("the pipeline does not start; GST_DEBUG=3 tells why on stderr")
        self._capture.set(cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(1e3 * self._read_s))

    def read(self) -> list[Shot]:
        """Wait for the next picture."""
        good, picture = self._capture.read()
        if not good:
            raise CameraLost(f"the pipeline ended, or gave nothing for {self._read_s:g} s")
        arrival_s = time.monotonic()
        if picture.ndim != 3 or picture.shape[2] != 3:
            raise CameraLost(f"the pipeline must end in BGR pictures, got {picture.shape}")
        return [Shot(np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8), arrival_s)]

    def close(self) -> None:
        """Stop the pipeline."""
        self._capture.release()


def connector(uri: Uri, config: SourceConfig) -> Connect:
    """Return what starts the pipeline; InputError when this OpenCV knows no GStreamer."""
    if "appsink" not in uri.target:
        raise InputError(f"cannot open {uri.shown}: the pipeline must end in BGR and appsink")
    if not opencv_has_gstreamer():
        raise InputError(
            f"cannot open {uri.shown}: this OpenCV ({cv2.__version__}) has no GStreamer, as "
            "all wheels from PyPI. Use the OpenCV of JetPack or of the distribution (package "
            "python3-opencv; uninstall opencv-python, make the environment with "
            "--system-site-packages), or an rtsp:// or v4l2:// uri"
        )

    _silence_opencv()

    def connect() -> Camera:
        return GstCamera(uri.target, config)

    return connect


def _silence_opencv() -> None:
    """Switch OpenCV's own log off: its warnings quote pipelines, which may hold passwords."""
    if hasattr(cv2.utils, "logging"):  # OpenCV 5
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    else:
        getattr(cv2, "setLogLevel")(0)  # noqa: B009 the stubs are of OpenCV 5


def opencv_has_gstreamer() -> bool:
    """Return whether OpenCV was built with GStreamer."""
    return re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()) is not None
