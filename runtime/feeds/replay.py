"""Play a tape: the feed that was recorded by :mod:`runtime.feeds.tape`, instant by instant."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from mambapro.cli import InputError
from mambapro.config import from_dict
from mambapro.preprocess import Picture
from runtime.config import RigConfig
from runtime.feeds.interface import CameraChange, Due, Instant, Notice, RigBegins, RigEnds
from runtime.feeds.preflight import Preflight
from runtime.feeds.tape import INSTANTS, RUN, SETTINGS
from runtime.sinks import RunName
from runtime.sources import Frame, decoded, open_video
from runtime.sync.offsets import ClockOffset
from runtime.sync.sync_statistics import SyncStatistics
from runtime.sync.synchroniser import Triplet

log = logging.getLogger(__name__)


def settings_of(folder: Path) -> Path:
    """Return the settings file of the tape ``folder``; InputError when it is no tape."""
    for name in (INSTANTS, SETTINGS, RUN):
        if not (folder / name).is_file():
            raise InputError(f"{folder} is no recording: it holds no {name}")
    return folder / SETTINGS


class ReplayFeed:
    """The instants of a tape; the end of a tape that was cut off is the last whole one."""

    def __init__(self, folder: Path) -> None:
        """Play ``folder``; InputError when it is no tape."""
        settings_of(folder)
        self.run: Final = RunName(**json.loads((folder / RUN).read_text(encoding="utf-8")))
        """What the ids of the recorded run begin with."""
        self._folder = folder
        self._videos: dict[str, Iterator[Picture]] = {}
        self._statistics: dict[str, SyncStatistics] = {}
        self._begun: dict[str, RigConfig] = {}

    def __iter__(self) -> Iterator[Instant]:
        """Give the instants; a rig that the tape leaves open ends with it."""
        now_s = 0.0
        with open(self._folder / INSTANTS, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    instant = self._instant(json.loads(line))
                except (StopIteration, json.JSONDecodeError):
                    log.warning("%s ends in line %d; it was cut off", self._folder, number)
                    break
                except (KeyError, TypeError, ValueError) as error:
                    raise InputError(
                        f"{self._folder / INSTANTS} is damaged: line {number}: {error!r}"
                    ) from error
                now_s = instant.now_s
                yield instant
        if self._begun:
            yield Instant(now_s, [RigEnds(rig) for rig in self._begun])

    def statistics(self) -> dict[str, SyncStatistics]:
        """Return how many triplets each rig had, and what they lacked."""
        return self._statistics

    def close(self) -> None:
        """Close all videos."""
        self._videos.clear()

    def _instant(self, line: dict[str, Any]) -> Instant:
        notices = [self._notice(notice) for notice in line["notices"]]
        due = [self._due(item) for item in line["due"]]
        return Instant(line["now_s"], notices, due, line["load"])

    def _notice(self, notice: dict[str, Any]) -> Notice:
        if "rig_begins" in notice:
            rig = from_dict(RigConfig, notice["rig_begins"])
            self._begun[rig.name] = rig
            self._statistics.setdefault(rig.name, SyncStatistics())
            return RigBegins(rig, self._before(notice))
        if "rig_ends" in notice:
            self._begun.pop(notice["rig_ends"], None)
            return RigEnds(notice["rig_ends"])
        return CameraChange(**notice["camera"])

    def _before(self, notice: dict[str, Any]) -> Preflight:
        with np.load(self._folder / notice["backgrounds"]) as backgrounds:
            pictures = {m: backgrounds[m] for m in backgrounds.files}
        return Preflight(
            sizes={m: tuple(size) for m, size in notice["sizes"].items()},
            frame_rate=notice["frame_rate"],
            offsets={m: ClockOffset(**offset) for m, offset in notice["offsets"].items()},
            backgrounds=pictures,
        )

    def _due(self, item: dict[str, Any]) -> Due:
        frames = {}
        for modality, facts in item["frames"].items():
            video, _ = facts.pop("video"), facts.pop("place")
            frames[modality] = Frame(next(self._pictures(video)), **facts)
        statistics = self._statistics[item["rig"]]
        statistics.triplets += 1
        statistics.missing += Counter(
            m for m in self._begun[item["rig"]].cameras if m not in frames
        )
        return Due(item["rig"], Triplet(item["time_s"], frames, item["skew_s"]))

    def _pictures(self, name: str) -> Iterator[Picture]:
        if name not in self._videos:
            self._videos[name] = _pictures(self._folder / name)
        return self._videos[name]


def _pictures(path: Path) -> Iterator[Picture]:
    """Yield the pictures of a lossless video."""
    container, stream = open_video(str(path))
    with container:
        for frame in decoded(container, stream, str(path)):
            yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
