"""Video files. A file never drops a frame: its decoder waits while the queue is full."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Final

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from mambapro.cli import InputError
from runtime.sources.read_ahead import QUEUE_FRAMES, ReadAhead
from runtime.sources.reading import Frame, TimeSource
from runtime.sources.uri import redact

MAX_BAD_PACKETS: Final = 25

log = logging.getLogger(__name__)


class FileSource(ReadAhead):
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
        super().__init__(path, self._decode(), queue_frames)

    def _decode(self) -> Iterator[Frame]:
        with contextlib.closing(self._container):
            frames = decoded(self._container, self._stream, self.path)
            for index, frame in enumerate(frames):
                yield self._convert(frame, index)

    def _convert(self, frame: VideoFrame, index: int) -> Frame:
        converted = self._reformatter.reformat(frame, format="rgb24")
        picture = np.asarray(converted.to_ndarray(), np.uint8)
        time_s, source = frame_time(frame, index, self.frame_rate)
        return Frame(picture, time_s, source, index, arrival_s=time_s)


def open_video(path: str) -> tuple[InputContainer, VideoStream]:
    """Open the first video stream of a file; InputError when there is none."""
    try:
        container = av.open(path, mode="r")
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"cannot open clip {redact(path)}: {_reason(error)}") from None
    if not container.streams.video:
        container.close()
        raise InputError(f"cannot open clip {redact(path)}: it has no video stream")
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
                raise InputError(f"cannot decode clip {redact(path)}: {_reason(error)}") from error
    if bad:
        log.warning("%s: %d packets could not be decoded and were skipped", redact(path), bad)


def frame_time(frame: VideoFrame, index: int, frame_rate: float) -> tuple[float, TimeSource]:
    """Return the time stamp of ``frame`` in seconds and where it came from."""
    if frame.pts is None or frame.time_base is None:
        return index / frame_rate, "frame_rate"
    return float(frame.pts * frame.time_base), "pts"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
