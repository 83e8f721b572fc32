"""Record a feed, so that it can be played again: every instant, and every picture without loss.

A tape is a folder:

- ``instants.jsonl``: a line an instant, its pictures by video and place in it; floats as they were;
- ``NAME-MODALITY-N.mkv``: pictures in H.264, RGB, lossless; N counts changes of their size;
- ``begin-N.npz``: backgrounds of a rig that began, named by the instant's notice;
- ``settings.yaml``, ``run.json``: the run's settings and name, which a replay takes.
"""

from __future__ import annotations

import json
import queue
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from av.video.frame import VideoFrame

from mambapro.cli import InputError
from mambapro.config import to_dict, to_yaml
from mambapro.contract import Modality
from mambapro.files import write_json, write_text
from mambapro.preprocess import Picture
from runtime.config import StreamConfig
from runtime.feeds.interface import Feed, Instant, Notice, RigBegins, RigEnds
from runtime.feeds.preflight import Preflight
from runtime.sinks import RunName
from runtime.sync.sync_statistics import SyncStatistics

INSTANTS: Final = "instants.jsonl"
SETTINGS: Final = "settings.yaml"
RUN: Final = "run.json"
QUEUE_FRAMES: Final = 32
LOSSLESS: Final = {"preset": "ultrafast", "qp": "0"}
"""With libx264rgb: 800 pictures of 640x360 a second on one core, 37 kB each (PyAV 18)."""


class TapedFeed:
    """Passes a feed on and records the first ``live.tape_s`` of it."""

    def __init__(self, feed: Feed, folder: Path, settings: StreamConfig, run: RunName) -> None:
        """Record into ``folder``, which must be new or empty; ``run`` names the run's events."""
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty; give a new folder for the recording")
        write_text(folder / SETTINGS, to_yaml(settings))
        write_json(folder / RUN, asdict(run))
        self._feed, self._max_s = feed, settings.live.tape_s
        self._tape: Tape | None = Tape(folder)

    def __iter__(self) -> Iterator[Instant]:
        """Give the instants of the feed, recorded."""
        first_s: float | None = None
        for instant in self._feed:
            first_s = instant.now_s if first_s is None else first_s
            if self._tape is not None:
                self._tape.write(instant)
                if instant.now_s - first_s >= self._max_s:
                    self._end_tape()
            yield instant

    def statistics(self) -> dict[str, SyncStatistics]:
        """Return what each rig's synchroniser did."""
        return self._feed.statistics()

    def close(self) -> None:
        """Complete the recording and close the feed."""
        try:
            self._end_tape()
        finally:
            self._feed.close()

    def _end_tape(self) -> None:
        tape, self._tape = self._tape, None
        if tape is not None:
            tape.close()


class Tape:
    """The folder while it is written."""

    def __init__(self, folder: Path) -> None:
        """Begin in ``folder``."""
        self._folder = folder
        self._lines = open(folder / INSTANTS, "w", encoding="utf-8")  # noqa: SIM115 close() does
        self._videos: dict[tuple[str, Modality], LosslessVideo] = {}
        self._count: Counter[str] = Counter()

    def write(self, instant: Instant) -> None:
        """Append ``instant``."""
        line = {
            "now_s": instant.now_s,
            "load": instant.load,
            "notices": [self._notice(notice) for notice in instant.notices],
            "due": [
                {
                    "rig": due.rig,
                    "time_s": due.triplet.time_s,
                    "skew_s": due.triplet.skew_s,
                    "frames": {
                        m: {
                            "time_s": frame.time_s,
                            "time_source": frame.time_source,
                            "index": frame.index,
                            "arrival_s": frame.arrival_s,
                            "connection": frame.connection,
                            **self._picture(due.rig, m, frame.picture),
                        }
                        for m, frame in due.triplet.frames.items()
                    },
                }
                for due in instant.due
            ],
        }
        self._lines.write(json.dumps(line) + "\n")
        self._lines.flush()

    def close(self) -> None:
        """Complete all files; raises the OSError that ended one, such as a full disk."""
        self._lines.close()
        for video in self._videos.values():
            video.close()

    def _notice(self, notice: Notice) -> dict[str, Any]:
        if isinstance(notice, RigBegins):
            return {"rig_begins": to_dict(notice.rig), **self._before(notice.before)}
        if isinstance(notice, RigEnds):
            return {"rig_ends": notice.rig}
        return {"camera": asdict(notice)}

    def _before(self, before: Preflight) -> dict[str, Any]:
        name = f"begin-{self._count['begin']}.npz"
        self._count["begin"] += 1
        backgrounds: dict[str, Any] = {str(m): p for m, p in before.backgrounds.items()}
        np.savez_compressed(self._folder / name, **backgrounds)
        return {
            "backgrounds": name,
            "sizes": before.sizes,
            "frame_rate": before.frame_rate,
            "offsets": {m: asdict(offset) for m, offset in before.offsets.items()},
        }

    def _picture(self, rig: str, modality: Modality, picture: Picture) -> dict[str, Any]:
        """Put a picture into its camera's video; return where it is."""
        video = self._videos.get((rig, modality))
        if video is None or video.size != picture.shape[:2]:
            if video is not None:
                video.close()
            key = f"{rig}-{modality}"
            video = LosslessVideo(self._folder / f"{key}-{self._count[key]}.mkv", picture.shape[:2])
            self._videos[rig, modality] = video
            self._count[key] += 1
        return {"video": video.path.name, "place": video.put(picture)}


class LosslessVideo:
    """Pictures in H.264 without loss, encoded in a thread of its own."""

    def __init__(self, path: Path, size: tuple[int, ...]) -> None:
        """Write pictures of ``size`` = (H, W) to ``path``."""
        self.path: Final = path
        self.size: Final = size
        self._queue: queue.Queue[Picture | None] = queue.Queue(QUEUE_FRAMES)
        self._count = 0
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name=f"tape {path.name}", daemon=True)
        self._thread.start()

    def put(self, picture: Picture) -> int:
        """Append ``picture`` and return its place; waits while the encoder is behind."""
        if self._error is not None:
            raise self._error
        self._queue.put(picture)
        self._count += 1
        return self._count - 1

    def close(self) -> None:
        """Complete the file; raises the OSError that ended it."""
        self._queue.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._encode()
        except (OSError, av.error.FFmpegError) as error:
            number = getattr(error, "errno", None) or 5
            self._error = OSError(number, getattr(error, "strerror", str(error)), str(self.path))
            while self._queue.get() is not None:  # let nobody wait for a dead encoder
                pass

    def _encode(self) -> None:
        with av.open(str(self.path), "w", format="matroska") as file:
            stream = file.add_stream("libx264rgb", rate=Fraction(25), options=LOSSLESS)
            stream.height, stream.width = self.size
            stream.pix_fmt = "rgb24"
            stream.codec_context.thread_count = 1
            while (picture := self._queue.get()) is not None:
                file.mux(stream.encode(VideoFrame.from_ndarray(picture, format="rgb24")))
            file.mux(stream.encode(None))
