"""Sources of pictures, one a camera. Reading has four outcomes: frame, nothing yet, end, failure.

This version reads files. A file never drops a frame: its decoder waits while the queue is full.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from mambapro.cli import InputError
from mambapro.preprocess import Picture

QUEUE_FRAMES: Final = 8
MAX_BAD_PACKETS: Final = 25
WAIT_S: Final = 0.2

TimeSource = Literal["pts", "frame_rate"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Frame:
    """One picture and when it was taken."""

    picture: Picture
    """(H, W, 3) uint8, R, G, B."""
    time_s: float
    """Capture time by the camera's own clock, s."""
    time_source: TimeSource
    """Where the time came from: the file's time stamp, or the count of frames over the rate."""
    index: int
    """Count of frames before this one in its source."""


@dataclass(frozen=True)
class NothingYet:
    """The source has not given a frame within the timeout; it may later."""


@dataclass(frozen=True)
class End:
    """The source has given its last frame."""

    frames: int
    """How many it gave."""


@dataclass(frozen=True)
class Failure:
    """The source broke; it gives no more frames."""

    reason: str
    """One line that names the source."""


Reading = Frame | NothingYet | End | Failure


class FileSource:
    """A video file, decoded by a thread of its own."""

    def __init__(self, path: str, queue_frames: int = QUEUE_FRAMES) -> None:
        """Open ``path``; InputError when it is not there or is no video."""
        self.path = path
        self._container, self._stream = open_video(path)
        # One reformatter a source: `to_ndarray(format=...)` makes a conversion context a frame.
        self._reformatter = VideoReformatter()
        rate = self._stream.average_rate
        self.frame_rate: Final = float(rate) if rate else 25.0
        self.size: Final = (self._stream.height, self._stream.width)
        self._queue: queue.Queue[Reading] = queue.Queue(queue_frames)
        self._stop = threading.Event()
        self._last: Reading | None = None
        self._thread = threading.Thread(target=self._run, name=f"decode {path}", daemon=True)
        self._thread.start()

    def read(self, timeout_s: float) -> Reading:
        """Return the next frame, or why there is none; waits at most ``timeout_s``."""
        if self._last is not None:
            return self._last
        try:
            reading = self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return NothingYet()
        if isinstance(reading, (End, Failure)):
            self._last = reading
        return reading

    def close(self) -> None:
        """Stop and join the decoder."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        count = 0
        try:
            with contextlib.closing(self._container):
                for frame in decoded(self._container, self._stream, self.path):
                    if not self._put(self._convert(frame, count)):
                        return
                    count += 1
        except InputError as error:
            self._put(Failure(str(error)))
            return
        self._put(End(count) if count else Failure(f"{self.path} holds no picture"))

    def _convert(self, frame: VideoFrame, index: int) -> Frame:
        converted = self._reformatter.reformat(frame, format="rgb24")
        picture = np.asarray(converted.to_ndarray(), np.uint8)
        time_s, source = frame_time(frame, index, self.frame_rate)
        return Frame(picture, time_s, source, index)

    def _put(self, reading: Reading) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(reading, timeout=WAIT_S)
                return True
            except queue.Full:
                continue
        return False


def open_source(uri: str) -> FileSource:
    """Open the camera at ``uri``; this version knows paths of video files."""
    scheme, separator, _ = uri.partition("://")
    if separator:
        raise InputError(f"cannot open {uri}: sources are video files here, got {scheme}://")
    return FileSource(uri)


def open_video(path: str) -> tuple[InputContainer, VideoStream]:
    """Open the first video stream of a file; InputError when there is none."""
    try:
        container = av.open(path, mode="r")
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"cannot open clip {path}: {_reason(error)}") from error
    if not container.streams.video:
        container.close()
        raise InputError(f"cannot open clip {path}: it has no video stream")
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1  # the rigs' cameras are the parallelism
    return container, stream


def decoded(container: InputContainer, stream: VideoStream, path: str) -> Iterator[VideoFrame]:
    """Yield the pictures of ``stream``; damaged packets are skipped, up to MAX_BAD_PACKETS."""
    bad = 0
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.error.FFmpegError as error:
            bad += 1
            if bad > MAX_BAD_PACKETS:
                raise InputError(f"cannot decode clip {path}: {_reason(error)}") from error
    if bad:
        log.warning("%s: %d packets could not be decoded and were skipped", path, bad)


def frame_time(frame: VideoFrame, index: int, frame_rate: float) -> tuple[float, TimeSource]:
    """Return the time stamp of ``frame`` in seconds and where it came from."""
    if frame.pts is None or frame.time_base is None:
        return index / frame_rate, "frame_rate"
    return float(frame.pts * frame.time_base), "pts"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
