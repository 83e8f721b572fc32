"""A first look at the beginning of each clip: clock offsets and the scene without its subjects."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from mambapro.cli import InputError
from mambapro.contract import Modality
from mambapro.preprocess import Picture
from runtime.config import RigConfig, StreamConfig
from runtime.sources import decoded, frame_time, open_video
from runtime.sync.offsets import ClockOffset, Grey, Matrix, OffsetEstimator

GREY_WIDTH: Final = 160
BACKGROUND_EVERY_S: Final = 0.4
BACKGROUNDS: Final = 25

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preflight:
    """What is known of a rig before it runs."""

    sizes: dict[Modality, tuple[int, int]]
    """Height and width of each camera's pictures, px."""
    frame_rate: float
    """Frames a second of the reference camera."""
    offsets: dict[Modality, ClockOffset]
    """Each clock against the reference's."""
    backgrounds: dict[Modality, Picture]
    """Reduced pictures of the scene without what moves."""


def homographies(rig: RigConfig) -> dict[Modality, Matrix]:
    """Return for each camera the map from reference pixels to its own."""
    return {
        modality: np.asarray(camera.homography or np.eye(3), np.float64)
        for modality, camera in rig.cameras.items()
    }


def preflight(rig: RigConfig, config: StreamConfig, pool: ThreadPoolExecutor) -> Preflight:
    """Look at the first seconds of every clip of ``rig``; names a clip that cannot be decoded."""
    looks = {m: Look(camera.uri, config.detect.width_px) for m, camera in rig.cameras.items()}
    try:
        offsets = _offsets(rig, config, looks, pool)
    finally:
        for look in looks.values():
            look.close()
    _report(rig, offsets)
    return Preflight(
        {m: look.size for m, look in looks.items()},
        looks[rig.reference].frame_rate,
        offsets,
        {m: look.background() for m, look in looks.items()},
    )


class Look:
    """The beginning of one clip, reduced, read bit by bit."""

    def __init__(self, uri: str, colour_width: int) -> None:
        """Open ``uri``; backgrounds are ``colour_width`` px wide."""
        self._uri = uri
        self._container, stream = open_video(uri)
        self._frames = decoded(self._container, stream, uri)
        self.frame_rate = float(stream.average_rate or 25)
        self.size = (stream.height, stream.width)
        self._grey_size = _reduced(self.size, GREY_WIDTH)
        self._colour_size = _reduced(self.size, colour_width)
        self._to_grey, self._to_colour = VideoReformatter(), VideoReformatter()
        self._colours: list[Picture] = []
        self._count = 0
        self._until_s: float | None = None

    def read(self, seconds: float) -> list[tuple[float, Grey]]:
        """Return time and reduced grey picture of each frame of the next ``seconds``."""
        greys: list[tuple[float, Grey]] = []
        for frame in self._frames:
            time_s, _ = frame_time(frame, self._count, self.frame_rate)
            greys.append((time_s, self._grey(frame)))
            if self._count % max(1, round(BACKGROUND_EVERY_S * self.frame_rate)) == 0:
                self._keep_colour(frame)
            self._count += 1
            self._until_s = time_s if self._until_s is None else self._until_s
            if time_s >= self._until_s + seconds:
                self._until_s = time_s
                break
        if not self._count:
            raise InputError(f"cannot decode clip {self._uri}: it holds no picture")
        return greys

    def background(self) -> Picture:
        """Return the median picture of the first BACKGROUNDS that were kept."""
        return np.asarray(np.median(self._colours, axis=0), np.uint8)

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _grey(self, frame: VideoFrame) -> Grey:
        height, width = self._grey_size
        small = self._to_grey.reformat(frame, width, height, format="gray", interpolation="AREA")
        return np.asarray(small.to_ndarray(), np.uint8)

    def _keep_colour(self, frame: VideoFrame) -> None:
        if len(self._colours) < BACKGROUNDS:
            height, width = self._colour_size
            small = self._to_colour.reformat(
                frame, width, height, format="rgb24", interpolation="AREA"
            )
            self._colours.append(np.asarray(small.to_ndarray(), np.uint8))


def _offsets(
    rig: RigConfig, config: StreamConfig, looks: Mapping[Modality, Look], pool: ThreadPoolExecutor
) -> dict[Modality, ClockOffset]:
    """Return the clocks' offsets; reads on while content leaves one open."""
    sync = config.sync
    prior_s = {m: camera.offset_s for m, camera in rig.cameras.items()}
    estimator = OffsetEstimator(
        rig.reference,
        looks[rig.reference].size,
        homographies(rig),
        window_s=sync.max_window_s,
        max_offset_s=sync.max_offset_s,
        max_error_s=sync.max_error_s,
    )
    offsets = {m: ClockOffset(offset_s, None) for m, offset_s in prior_s.items()}
    for _ in range(max(1, round(sync.max_window_s / sync.window_s))):
        new = dict(
            zip(looks, pool.map(lambda k: k.read(sync.window_s), looks.values()), strict=True)
        )
        for modality, greys in new.items():
            for time_s, grey in greys:
                estimator.add(modality, time_s, grey, looks[modality].size)
        if not sync.estimate or len(looks) < 2:
            break
        offsets = estimator.estimate(prior_s)
        if all(offset.error_s is not None for offset in offsets.values()) or not all(new.values()):
            break
    return offsets


def _report(rig: RigConfig, offsets: Mapping[Modality, ClockOffset]) -> None:
    for modality, offset in offsets.items():
        if modality == rig.reference:
            continue
        if offset.error_s is None:
            log.warning(
                "%s/%s: no confident clock offset from content; %.0f ms is assumed",
                rig.name,
                modality,
                offset.seconds * 1e3,
            )
        else:
            log.info(
                "%s/%s: clock offset %+.1f ms (standard error %.1f ms)",
                rig.name,
                modality,
                offset.seconds * 1e3,
                offset.error_s * 1e3,
            )


def _reduced(size: tuple[int, int], width: int) -> tuple[int, int]:
    return round(size[0] * width / size[1]), width
