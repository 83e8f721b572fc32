"""Write the mosaic as H.264, in a thread of its own."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import av.error
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from mambapro.files import replacing
from mambapro.preprocess import Picture

QUEUE_JOBS: Final = 6
WAIT_S: Final = 0.2

log = logging.getLogger(__name__)


class VideoWriter:
    """Encodes pictures that jobs draw; the file appears when it is closed without an error."""

    def __init__(self, path: Path, size: tuple[int, int], fps: float, crf: int) -> None:
        """Write pictures of ``size`` = (H, W), both even, to ``path``."""
        self._path, self._size, self._fps, self._crf = path, size, fps, crf
        self._jobs: queue.Queue[Callable[[], Picture] | None] = queue.Queue(QUEUE_JOBS)
        self._error: OSError | None = None
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"encode {path.name}", daemon=True)
        self._thread.start()

    def put(self, job: Callable[[], Picture]) -> None:
        """Let ``job`` draw the next picture; waits while the encoder is behind."""
        self._hand_over(job)

    def close(self) -> None:
        """Finish the file; raises the OSError that ended it, such as a full disk."""
        self._hand_over(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """Stop and leave what was at ``path`` before."""
        self._abandoned.set()
        with contextlib.suppress(queue.Full):
            self._jobs.put_nowait(None)
        self._thread.join()

    def _hand_over(self, job: Callable[[], Picture] | None) -> None:
        while self._error is None:
            try:
                self._jobs.put(job, timeout=WAIT_S)
                return
            except queue.Full:
                continue
        raise self._error

    def _run(self) -> None:
        try:
            with replacing(self._path) as aside:
                self._encode(aside)
        except _AbandonedError:
            log.debug("%s abandoned", self._path)
        except (OSError, av.error.FFmpegError) as error:
            number = getattr(error, "errno", None) or 5
            self._error = OSError(number, getattr(error, "strerror", str(error)), str(self._path))

    def _encode(self, aside: Path) -> None:
        reformatter = VideoReformatter()
        rate = Fraction(self._fps).limit_denominator(1000)
        with av.open(str(aside), "w", format="mp4", options={"movflags": "+faststart"}) as file:
            stream = file.add_stream(
                "libx264", rate=rate, options={"preset": "superfast", "crf": str(self._crf)}
            )
            stream.height, stream.width = self._size
            stream.pix_fmt = "yuv420p"
            stream.codec_context.thread_count = 1
            while (job := self._next()) is not None:
                picture = VideoFrame.from_ndarray(np.ascontiguousarray(job()), format="rgb24")
                file.mux(stream.encode(reformatter.reformat(picture, format="yuv420p")))
            file.mux(stream.encode(None))

    def _next(self) -> Callable[[], Picture] | None:
        while not self._abandoned.is_set():
            try:
                job = self._jobs.get(timeout=WAIT_S)
            except queue.Empty:
                continue
            if not self._abandoned.is_set():
                return job
        raise _AbandonedError


class _AbandonedError(Exception):
    """The run failed; its video is not wanted."""
