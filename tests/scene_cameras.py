"""A live run inside the test's process, on cameras that show a little scene and fail when told."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from functools import lru_cache

import pytest

from runtime.assembly import run_live
from runtime.config import (
    CameraConfig,
    LiveConfig,
    MatchConfig,
    RigConfig,
    StreamConfig,
    SyncConfig,
    VideoConfig,
)
from runtime.feeds import live_rig
from runtime.sources import Frame, NothingYet, SourceStatus
from tests.runtime_scenes import FPS, HOMOGRAPHIES, ColourEngine, Walk, picture

ROUND_S = 4.0
WALK = Walk("a", 0.4, speed=150)
PATIENCE_S = 30.0


class SceneCamera:
    """Shows the walk again and again at FPS frames a second; a test sets its state and reason."""

    live = True

    def __init__(self, modality: str, walk: Walk = WALK) -> None:
        self.modality, self.state, self.reason = modality, "live", ""
        self.walk = walk
        self._begun_s = time.monotonic()
        self._given = 0

    def read(self, timeout_s):
        due = int((time.monotonic() - self._begun_s) * FPS)
        if self.state != "live" or due - self._given > 8:
            self._given = due
        if self._given >= due:
            return NothingYet()
        self._given += 1
        at_s = self._given / FPS
        shown = seen(self.modality, self.walk, self._given % round(ROUND_S * FPS))
        return Frame(shown, 1e9 + at_s, "rtcp", self._given, self._begun_s + at_s)

    def status(self):
        return SourceStatus(self.state, self.reason, time.time(), self._given, 2, 1, "rtcp")

    def close(self):
        self.state = "ended"


@lru_cache(maxsize=600)
def seen(modality: str, walk: Walk, frame: int):
    """Return a picture of a round; drawing them all again would take most of a core."""
    return picture(modality, [walk], frame / FPS)


def scene_rig(name: str, *modalities: str) -> RigConfig:
    cameras = {
        m: CameraConfig(f"{name}-{m}", tuple(map(tuple, HOMOGRAPHIES[m].tolist())))
        for m in modalities or ("rgb", "nir", "tir")
    }
    return RigConfig(name, cameras)


class InProcess:
    """``with InProcess(folder, monkeypatch, tend) as run:``; ``run.view`` is the live run's.

    ``tend(view)`` is what the run is tended by for as long as it runs; ``walks`` are who passes a
    rig, where it is not WALK; ``settings`` are sections of its StreamConfig.
    """

    def __init__(
        self, folder, monkeypatch: pytest.MonkeyPatch, tend, rigs=None, walks=None, **settings
    ) -> None:
        self.cameras: dict[str, SceneCamera] = {}

        def open_camera(uri, _):
            rig, _, modality = uri.rpartition("-")
            known = modality if modality in HOMOGRAPHIES else "rgb"
            self.cameras[uri] = SceneCamera(known, (walks or {}).get(rig, WALK))
            return self.cameras[uri]

        monkeypatch.setattr(live_rig, "open_source", open_camera)
        self._config = StreamConfig(
            output=str(folder),
            live=LiveConfig(warm_up_s=0.8, patience_s=0.5),
            sync=SyncConfig(estimate=False, tolerance_s=0.03),
            video=VideoConfig(enabled=False),
            **{"match": MatchConfig(decide_after=2), **settings},
        )
        folder.mkdir(parents=True, exist_ok=True)
        self._rigs = rigs or [scene_rig("gate")]
        self._tend = tend
        self._views: queue.Queue = queue.Queue()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> InProcess:
        self._thread.start()
        self.view = self._views.get(timeout=PATIENCE_S)
        if isinstance(self.view, BaseException):
            raise self.view
        return self

    def __exit__(self, *_: object) -> None:
        self.view.feed.stop()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        @contextlib.contextmanager
        def serve(view):
            with self._tend(view):
                self._views.put(view)
                yield

        try:
            run_live(self._config, self._rigs, {"person": ColourEngine()}, serve)
        except BaseException as error:  # the test's thread shall see it
            self._views.put(error)
            raise


def until(wanted, patience_s: float = PATIENCE_S):
    """Wait until ``wanted()`` is true; return what it gave."""
    give_up_s = time.monotonic() + patience_s
    while not (got := wanted()):
        assert time.monotonic() < give_up_s, "it did not come to pass"
        time.sleep(0.02)
    return got
