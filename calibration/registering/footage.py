"""Read what a camera shows: clips, pictures in a folder, or a live camera for a while."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import av
import cv2
import numpy as np

from mambapro.cli import InputError
from mambapro.preprocess import Picture, read_picture

STILLS: Final = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
STILL_S: Final = 1.0
"""Pictures of a folder count as this far apart, s."""
TIMEOUT_S: Final = 8.0
"""Longest wait for a live camera, s."""
SETTLE_S: Final = 1.0
"""A live camera's first pictures came while it was opened; these are left out, s."""
JUMP_S: Final = 3.0
"""A picture that comes later than this by its time stamp has a stamp that jumped back, s."""
MADE_UP: Final = frozenset(("mpjpeg", "mjpeg"))
"""Formats whose time stamps FFmpeg makes up from a guessed rate."""
LIVE: Final = ("rtsp://", "rtsps://", "http://", "https://", "v4l2://", "usb:")

Shot = tuple[float, Picture]
"""Time in seconds and picture (H, W, 3) R, G, B."""


def shots(camera: str, uri: str, seconds: float, every_s: float) -> Iterator[Shot]:
    """Yield pictures at least ``every_s`` apart, of the first ``seconds``.

    Times of a clip are its own, those of a live camera on this machine's monotonic clock
    (``LiveClock``). Errors name the ``camera`` and never its uri, which may hold a password.
    """
    if uri.startswith(LIVE):
        return _video(camera, _device(uri), seconds, every_s, live=True)
    if "://" in uri or uri.startswith("gst:"):
        raise InputError(
            f"camera {camera}: registration reads files, folders and {', '.join(LIVE)}; "
            f"record a clip and give it by --clip {camera}=FILE"
        )
    path = Path(uri)
    if path.is_dir():
        return _folder(camera, path, seconds)
    if not path.is_file():
        raise InputError(
            f"camera {camera}: there is no {path}; give a clip by --clip {camera}=FILE"
        )
    return _video(camera, str(path), seconds, every_s, live=False)


def _folder(camera: str, path: Path, seconds: float) -> Iterator[Shot]:
    names = sorted(item for item in path.iterdir() if item.suffix.lower() in STILLS)
    if not names:
        raise InputError(f"camera {camera}: {path} holds no pictures ({' '.join(sorted(STILLS))})")
    for number, name in enumerate(names[: max(1, int(seconds / STILL_S))]):
        yield number * STILL_S, read_picture(str(name))


def _device(uri: str) -> str:
    return f"/dev/video{uri[4:]}" if uri.startswith("usb:") else uri.removeprefix("v4l2://")


def _video(camera: str, uri: str, seconds: float, every_s: float, live: bool) -> Iterator[Shot]:
    options: dict[str, Any] = {}
    if live:
        uri, transport = _transport(uri)
        options = {"timeout": TIMEOUT_S, "options": {"rtsp_transport": transport}}
        options |= {"format": "v4l2"} if uri.startswith("/dev/") else {}
    try:
        with av.open(uri, **options) as container:
            yield from _decoded(container, seconds, every_s, live)
    except (av.FFmpegError, IndexError) as error:
        reason = getattr(error, "strerror", None) or "it holds no video"
        raise InputError(f"camera {camera}: its pictures cannot be read: {reason}") from error


def _transport(uri: str) -> tuple[str, str]:
    """Return ``uri`` without ``transport=udp``, which is ours alone, and what it said."""
    address, _, query = uri.partition("?")
    ours = [field for field in query.split("&") if field.startswith("transport=")]
    theirs = [field for field in query.split("&") if field and field not in ours]
    transport = ours[0].partition("=")[2] if ours else "tcp"
    return "?".join([address, "&".join(theirs)] if theirs else [address]), transport


def _decoded(container: Any, seconds: float, every_s: float, live: bool) -> Iterator[Shot]:
    clock = LiveClock() if live else None
    stamped = container.format.name not in MADE_UP
    begin_s = last_s = float("nan")
    for number, frame in enumerate(_frames(container, live)):
        time_s = number / 25 if frame.time is None else float(frame.time)
        if clock is not None:
            own_s = time_s if stamped and frame.time is not None else None
            time_s = clock.time_s(own_s, time.monotonic())
        if begin_s != begin_s:
            begin_s = time_s + (SETTLE_S if live else 0.0)
        if time_s - begin_s > seconds:
            return
        if time_s >= begin_s and not time_s - last_s < every_s - 0.005:
            last_s = time_s
            yield time_s, np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def _frames(container: Any, live: bool) -> Iterator[Any]:
    """Yield the decoded pictures; what the network damaged is passed over."""
    for packet in container.demux(video=0):
        try:
            frames = packet.decode()
        except av.InvalidDataError:
            if not live:
                raise
            continue
        yield from frames


class LiveClock:
    """When a live camera's pictures were there, although whoever looks at them falls behind.

    The camera's time stamps say how far its pictures are apart; the one that came with the least
    delay says when that was on this machine's clock.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self._offset_s = float("inf")

    def time_s(self, stamp_s: float | None, arrival_s: float) -> float:
        """Return the time of a picture; without a time stamp its arrival must do."""
        if stamp_s is None:
            return arrival_s
        offset_s = arrival_s - stamp_s
        if offset_s < self._offset_s or offset_s - self._offset_s > JUMP_S:
            self._offset_s = offset_s
        return stamp_s + self._offset_s


def reduced(picture: Picture, width: int) -> Picture:
    """Return ``picture`` as grey (h, w) of at most ``width`` columns."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    if grey.shape[1] <= width:
        return np.asarray(grey, np.uint8)
    rows = round(grey.shape[0] * width / grey.shape[1])
    return np.asarray(cv2.resize(grey, (width, rows), interpolation=cv2.INTER_AREA), np.uint8)
