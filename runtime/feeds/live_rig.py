"""One rig of live cameras: warm up, pair frames, notice who goes and comes back."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from concurrent.futures import Executor
from typing import Final

import cv2
import numpy as np

from mambapro.contract import Modality
from runtime.config import RigConfig, StreamConfig
from runtime.feeds.interface import CameraChange, Notice, RigBegins, RigEnds
from runtime.feeds.preflight import homographies
from runtime.feeds.warm_up import WarmUp
from runtime.sources import Frame, Source, SourceStatus, State, open_source
from runtime.sync.clocks import TrackedClocks
from runtime.sync.content_offsets import ContentOffsets
from runtime.sync.sync_statistics import SyncStatistics
from runtime.sync.synchroniser import Synchroniser, Triplet

EPOCH_S: Final = time.time() - time.monotonic()
"""What makes a time of this process's own clock one since 1970; it stays when that clock is set."""


def now_s() -> float:
    """Return now in the time of live triplets, s."""
    return time.monotonic() + EPOCH_S


log = logging.getLogger(__name__)


class LiveRig:
    """Polled by the feed's thread; each source reads and decodes in a thread of its own."""

    def __init__(self, rig: RigConfig, config: StreamConfig, pool: Executor) -> None:
        """Begin to connect to the cameras of ``rig``; clocks are compared now and then in ``pool``.

        InputError when a camera can never give a picture.
        """
        self.rig: Final = rig
        self._config = config
        self._warm_up: WarmUp | None = WarmUp(rig, config.live.warm_up_s, config.detect.width_px)
        self._sizes: dict[Modality, tuple[int, int]] = {}
        prior_s = {m: camera.offset_s for m, camera in rig.cameras.items()}
        clocks = TrackedClocks(prior_s)
        sync = config.sync
        self._content = ContentOffsets(
            rig.name, rig.reference, homographies(rig), prior_s, clocks, sync, pool
        )
        self._synchroniser = Synchroniser(
            tuple(rig.cameras), rig.reference, clocks, sync.tolerance_s, sync.buffer_frames,
            sync.max_wait_s, sync.reorder_s,
        )  # fmt: skip
        self._told: dict[Modality, State] = {}
        self._opened_s = time.time()
        with contextlib.ExitStack() as owner:
            owner.callback(self._content.close)
            self._sources: dict[Modality, Source] = {
                m: owner.enter_context(contextlib.closing(open_source(c.uri, config.source)))
                for m, c in rig.cameras.items()
            }
            self._owner = owner.pop_all()

    @property
    def statistics(self) -> SyncStatistics:
        """What the synchroniser did so far."""
        return self._synchroniser.statistics

    @property
    def begun(self) -> bool:
        """Whether it knows its cameras and gives triplets."""
        return self._warm_up is None

    def status(self) -> dict[Modality, SourceStatus]:
        """Return how each camera is; safe to call from any thread."""
        return {m: source.status() for m, source in self._sources.items()}

    def poll(self) -> tuple[list[Notice], Triplet | None]:
        """Take what the cameras gave; return what changed, and a triplet when one is due."""
        for modality, source in self._sources.items():
            while isinstance(frame := source.read(0.0), Frame):
                self._take(modality, frame)
        notices = self._changes()
        triplet = self._fresh(time.monotonic())
        if self._warm_up is not None:
            before = self._warm_up.finished()
            if before is None:
                return notices, None
            log.info(
                "%s: watching, %.1f frames/s",
                self.rig.name, before.frame_rate, extra={"rig": self.rig.name},
            )  # fmt: skip
            self._warm_up, self._sizes = None, dict(before.sizes)
            notices.append(RigBegins(self.rig, before))
        if triplet is None:
            return notices, None
        return notices, dataclasses.replace(triplet, time_s=triplet.time_s + EPOCH_S)

    def leave(self) -> list[Notice]:
        """Let go of the cameras; return the notice that the rig is over, if it had begun."""
        self.close()
        return [] if self._warm_up is not None else [RigEnds(self.rig.name)]

    def close(self) -> None:
        """Let go of the cameras."""
        self._owner.close()

    def _fresh(self, now_s: float) -> Triplet | None:
        """Return the next triplet that is not too old to be worked on; older ones are dropped."""
        while (triplet := self._synchroniser.pop(now_s)) is not None:
            age_s = now_s - min(frame.arrival_s for frame in triplet.frames.values())
            if age_s <= self._config.live.max_age_s:
                return triplet
            self.statistics.skipped.update(triplet.frames.keys())
        return None

    def _take(self, modality: Modality, frame: Frame) -> None:
        if self._warm_up is not None:
            self._warm_up.add(modality, frame)
        frame = self._fitted(modality, frame)
        time_s = self._synchroniser.push(modality, frame)
        if time_s is not None and self._config.sync.estimate:
            self._content.add(modality, frame.picture, time_s)

    def _fitted(self, modality: Modality, frame: Frame) -> Frame:
        """Scale a picture to the size that its camera began with, which homographies are for."""
        height, width = frame.picture.shape[:2]
        rows, columns = self._sizes.setdefault(modality, (height, width))
        if (height, width) == (rows, columns):
            return frame
        picture = cv2.resize(frame.picture, (columns, rows), interpolation=cv2.INTER_AREA)
        return dataclasses.replace(frame, picture=np.asarray(picture, np.uint8))

    def _changes(self) -> list[Notice]:
        """Return the cameras that went or came since the last poll; at first all are expected."""
        changes: list[Notice] = []
        waiting = time.time() - self._opened_s < self._config.live.patience_s
        for modality, status in self.status().items():
            if waiting and status.frames == 0:
                continue
            before = self._told.get(modality, "live")
            if (status.state == "live") != (before == "live"):
                changes.append(
                    CameraChange(
                        self.rig.name, modality, status.state, status.reason, status.since_s
                    )
                )
            self._told[modality] = status.state
        return changes
