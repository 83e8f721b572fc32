"""One rig of live cameras: warm up, pair frames, notice who goes and comes back."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from typing import Final

import cv2
import numpy as np

from mambapro.contract import Modality
from runtime.clocks import ClockTracker
from runtime.config import RigConfig, StreamConfig
from runtime.feed import CameraChange, Notice, RigBegins, RigEnds
from runtime.sources import Frame, Source, SourceStatus, State, open_source
from runtime.synchroniser import Synchroniser, SyncStatistics, Triplet
from runtime.warm_up import WarmUp

log = logging.getLogger(__name__)


class LiveRig:
    """Polled by the feed's thread; each source reads and decodes in a thread of its own."""

    def __init__(self, rig: RigConfig, config: StreamConfig) -> None:
        """Begin to connect to the cameras of ``rig``."""
        self.rig: Final = rig
        self._config = config
        self._warm_up: WarmUp | None = WarmUp(rig, config.live.warm_up_s, config.detect.width_px)
        self._sizes: dict[Modality, tuple[int, int]] = {}
        self._clocks = {m: ClockTracker(offset_s=c.offset_s) for m, c in rig.cameras.items()}
        sync = config.sync
        self._synchroniser = Synchroniser(
            tuple(rig.cameras), rig.reference, self._clocks,
            sync.tolerance_s, sync.buffer_frames, config.live.max_wait_s,
        )  # fmt: skip
        self._told: dict[Modality, State] = {}
        self._opened_s = time.time()
        with contextlib.ExitStack() as owner:
            self._sources: dict[Modality, Source] = {
                m: owner.enter_context(contextlib.closing(open_source(c.uri, config.source)))
                for m, c in rig.cameras.items()
            }
            self._owner = owner.pop_all()

    @property
    def statistics(self) -> SyncStatistics:
        """What the synchroniser did so far."""
        return self._synchroniser.statistics

    def status(self) -> dict[Modality, SourceStatus]:
        """Return how each camera is."""
        return {m: source.status() for m, source in self._sources.items()}

    def poll(self) -> tuple[list[Notice], Triplet | None]:
        """Take what the cameras gave; return what changed, and a triplet when one is due."""
        for modality, source in self._sources.items():
            while isinstance(frame := source.read(0.0), Frame):
                self._take(modality, frame)
        notices = self._changes()
        if self._warm_up is not None:
            before = self._warm_up.finished()
            if before is None:
                return notices, None
            log.info("%s: watching, %.1f frames/s", self.rig.name, before.frame_rate)
            self._warm_up, self._sizes = None, dict(before.sizes)
            notices.append(RigBegins(self.rig, before))
        return notices, self._synchroniser.pop(time.monotonic())

    def leave(self) -> list[Notice]:
        """Let go of the cameras; return the notice that the rig is over, if it had begun."""
        self.close()
        return [] if self._warm_up is not None else [RigEnds(self.rig.name)]

    def close(self) -> None:
        """Let go of the cameras."""
        self._owner.close()

    def _take(self, modality: Modality, frame: Frame) -> None:
        if self._warm_up is not None:
            self._clocks[modality].add(frame)
            self._warm_up.add(modality, frame)
        else:
            self._synchroniser.push(modality, self._fitted(modality, frame))

    def _fitted(self, modality: Modality, frame: Frame) -> Frame:
        """Scale a picture to the size that the rig began with, which homographies are for."""
        size = self._sizes.setdefault(modality, frame.picture.shape[:2])
        if frame.picture.shape[:2] == size:
            return frame
        picture = cv2.resize(frame.picture, size[::-1], interpolation=cv2.INTER_AREA)
        return dataclasses.replace(frame, picture=np.asarray(picture, np.uint8))

    def _changes(self) -> list[Notice]:
        """Return the cameras that went or came since the last poll; at first all are expected."""
        changes: list[Notice] = []
        now_s = time.time()
        for modality, status in self.status().items():
            state = status.state
            if state == "connecting" and now_s - self._opened_s < self._config.live.patience_s:
                continue
            before = self._told.get(modality, "live")
            if (state == "live") != (before == "live"):
                changes.append(
                    CameraChange(self.rig.name, modality, state, status.reason, status.since_s)
                )
            self._told[modality] = state
        return changes
