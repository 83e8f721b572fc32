"""A camera behind FFmpeg, through PyAV: what network cameras and V4L2 devices have in common.

FFmpeg's own log stays off, as PyAV leaves it: its lines hold whole URIs, and its callback needs the
GIL in the middle of FFmpeg. What it would say comes as exceptions, whose words are used without the
file name that they carry.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Mapping
from typing import Final

import av
import av.error
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from runtime.sources.camera import CameraLost, CameraRefused, Shot

CLOCKLESS: Final = frozenset(("mpjpeg", "mjpeg"))
"""Formats whose time stamps FFmpeg makes up from a guessed rate."""
CLOCK_IS_SET_S: Final = 1e9
"""A camera that tells of an earlier time (9 September 2001) was never told the time."""

_PRFT = struct.Struct("=q")  # AVProducerReferenceTime: Unix time of the packet, us, then flags


class AvCamera:
    """One open video stream."""

    def __init__(
        self,
        target: str,
        options: Mapping[str, str],
        *,
        open_s: float,
        read_s: float,
        slice_s: float,
        format_name: str | None = None,
    ) -> None:
        """Open ``target``, in ``open_s`` or a little more; CameraLost when that fails.

        ``read_s``: it is lost when nothing came for so long. ``slice_s``: what ``read`` waits.
        """
        self.damaged = 0
        self._read_s, self._slice_s = read_s, slice_s
        begun_s = time.monotonic()
        try:
            self._container = av.open(
                target,
                format=format_name,
                options=dict(options),
                timeout=(open_s, slice_s),
                metadata_errors="replace",
            )
        except (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError) as error:
            raise CameraRefused(_words(error)) from None
        except (av.error.FFmpegError, OSError, ValueError) as error:
            if time.monotonic() - begun_s >= open_s:  # how FFmpeg calls that varies
                raise CameraLost(f"no answer within {open_s:g} s") from None
            raise CameraLost(_words(error)) from None
        if not self._container.streams.video:
            self._container.close()
            raise CameraLost("it sends no video")
        self._stream = self._container.streams.video[0]
        self._stream.codec_context.thread_count = 1  # the cameras are the parallelism
        self._has_clock = self._container.format.name not in CLOCKLESS
        self._reformatter = VideoReformatter()  # one a camera; `to_ndarray` makes one a picture
        self._packets: Iterator[Packet[VideoStream]] = self._container.demux(self._stream)
        self._packet_s = time.monotonic()
        self._whole = True
        self._wallclock_offset_s: float | None = None
        self._last: tuple[float, float] | None = None  # time stamp and arrival of a picture, s

    def read(self) -> list[Shot]:
        """Return what the next packet gives; nothing when none comes within the slice."""
        packet = self._next_packet()
        if packet is None:
            return []
        arrival_s = self._packet_s = time.monotonic()
        self._note_wallclock(packet)
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            self._whole = False
            self.damaged += 1
            return []
        whole = [frame for frame in frames if self._is_whole(frame)]
        self.damaged += len(frames) - len(whole)
        return [self._shot(frame, arrival_s) for frame in whole]

    def close(self) -> None:
        """Close the stream."""
        self._container.close()

    def _next_packet(self) -> Packet[VideoStream] | None:
        asked_s = time.monotonic()
        try:
            return next(self._packets)
        except StopIteration:
            raise CameraLost("the camera ended the stream") from None
        except av.error.FFmpegError as error:
            now_s = time.monotonic()
            # FFmpeg 8 answers an interrupt with EXIT, in RTSP with EIO now and then.
            if now_s - asked_s < self._slice_s:
                raise CameraLost(_words(error)) from None
        if now_s - self._packet_s >= self._read_s:
            raise CameraLost(f"nothing came for {now_s - self._packet_s:.1f} s")
        self._packets = self._container.demux(self._stream)
        return None

    def _is_whole(self, frame: VideoFrame) -> bool:
        """Return whether ``frame`` is as it was sent: what follows damage inherits it.

        That is until the next key frame, and FFmpeg flags the damaged picture alone.
        """
        if frame.is_corrupt:
            self._whole = False
        elif frame.key_frame:
            self._whole = True
        return self._whole

    def _note_wallclock(self, packet: Packet[VideoStream]) -> None:
        """Remember how the camera's clock, by its latest RTCP sender report, goes with pts."""
        told = packet.get_sidedata("prft")
        if not told or packet.pts is None or packet.time_base is None:
            return
        (microseconds,) = _PRFT.unpack_from(bytes(told))
        wallclock_s = microseconds / 1e6
        if wallclock_s > CLOCK_IS_SET_S:
            self._wallclock_offset_s = wallclock_s - float(packet.pts * packet.time_base)

    def _shot(self, frame: VideoFrame, arrival_s: float) -> Shot:
        converted = self._reformatter.reformat(frame, format="rgb24")
        picture = np.asarray(converted.to_ndarray(), np.uint8)
        pts_s = self._pts_s(frame, arrival_s) if self._has_clock else None
        wallclock_s = None
        if pts_s is not None and self._wallclock_offset_s is not None:
            wallclock_s = pts_s + self._wallclock_offset_s
        return Shot(picture, arrival_s, pts_s, wallclock_s)

    def _pts_s(self, frame: VideoFrame, arrival_s: float) -> float | None:
        """Return the time stamp; where FFmpeg leaves one out, time goes on as the arrivals do."""
        pts_s = None
        if frame.pts is not None and frame.time_base is not None:
            pts_s = float(frame.pts * frame.time_base)
        elif self._last is not None:
            pts_s = self._last[0] + arrival_s - self._last[1]
        if pts_s is not None:
            self._last = pts_s, arrival_s
        return pts_s


def _words(error: Exception) -> str:
    """Return what FFmpeg says, without the URI that the exception carries."""
    return getattr(error, "strerror", None) or type(error).__name__
