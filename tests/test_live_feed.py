"""The feed of live cameras, on cameras that are made up: what it gives, drops, and notices."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from mambapro.cli import InputError
from runtime.config import CameraConfig, LiveConfig, RigConfig, StreamConfig, SyncConfig
from runtime.feeds import live_rig
from runtime.feeds.interface import CameraChange, RigBegins, RigEnds
from runtime.feeds.live import LiveFeed
from runtime.sources import Frame, NothingYet, SourceStatus, open_source

PERIOD_S = 0.02
CONFIG = StreamConfig(
    live=LiveConfig(warm_up_s=0.3, patience_s=0.5, latency_budget_s=0.2, max_age_s=0.6),
    sync=SyncConfig(estimate=False, tolerance_s=0.015),
)


class Camera:
    """A camera at 50 frames a second, whose state a test sets; it drops the oldest of 8 frames."""

    live = True

    def __init__(self, size=(36, 64)):
        self.size, self.state, self.dropped = size, "live", 0
        self.closed = False
        self._begun_s = time.monotonic()
        self._given = 0

    def read(self, timeout_s):
        due = int((time.monotonic() - self._begun_s) / PERIOD_S)
        if self.state != "live":
            self._given = due
        if due - self._given > 8:
            self.dropped += due - 8 - self._given
            self._given = due - 8
        if self._given >= due:
            return NothingYet()
        self._given += 1
        arrival_s = self._begun_s + self._given * PERIOD_S
        picture = np.full((*self.size, 3), self._given % 256, np.uint8)
        return Frame(picture, 1e9 + arrival_s, "rtcp", self._given, arrival_s)

    def status(self):
        return SourceStatus(
            self.state, "as told", time.time(), self._given, self.dropped, 0, "rtcp"
        )

    def close(self):
        self.closed = True


@pytest.fixture
def cameras(monkeypatch):
    """Every uri opens a camera; they are kept by uri."""
    opened = {}

    def open_camera(uri, config):
        if uri.startswith("bad:"):
            return open_source(uri, config)
        opened[uri] = Camera()
        return opened[uri]

    monkeypatch.setattr(live_rig, "open_source", open_camera)
    return opened


def rig(name, **cameras):
    square = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    uris = cameras or {m: f"{name}-{m}" for m in ("rgb", "nir", "tir")}
    return RigConfig(name, {m: CameraConfig(uri, square) for m, uri in uris.items()})


def watch(feed, until, slow_s=0.0):
    """Take instants until ``until(instants)``; return them."""
    instants = []
    give_up_s = time.monotonic() + 20
    for instant in feed:
        instants.append(instant)
        time.sleep(slow_s if instant.due else 0.0)
        assert time.monotonic() < give_up_s
        if until(instants):
            break
    return instants


def notices(instants, kind):
    return [n for instant in instants for n in instant.notices if isinstance(n, kind)]


def triplets(instants, name):
    return [due.triplet for instant in instants for due in instant.due if due.rig == name]


def test_a_rig_begins_when_it_knows_its_cameras_and_gives_triplets(cameras):
    feed = LiveFeed([rig("gate")], CONFIG)
    instants = watch(feed, lambda i: len(triplets(i, "gate")) >= 20)
    feed.stop()
    rest = list(feed)
    feed.close()
    (begins,) = notices(instants, RigBegins)
    assert begins.before.sizes == dict.fromkeys(("rgb", "nir", "tir"), (36, 64))
    assert begins.before.frame_rate == pytest.approx(50, rel=0.1)
    assert set(begins.before.backgrounds) == {"rgb", "nir", "tir"}
    first = next(i for i, instant in enumerate(instants) if instant.due)
    assert notices(instants[: first + 1], RigBegins)
    seen = triplets(instants, "gate")
    assert sum(len(t.frames) == 3 for t in seen) >= 18
    assert abs(seen[-1].time_s - time.time()) < 2
    assert [type(n) for n in rest[-1].notices] == [RigEnds]
    assert all(camera.closed for camera in cameras.values())


def test_a_camera_that_goes_is_told_and_masked_and_one_that_returns_is_told(cameras):
    feed = LiveFeed([rig("gate")], CONFIG)
    watch(feed, lambda i: len(triplets(i, "gate")) >= 10)
    cameras["gate-tir"].state = "stalled"
    gone = watch(feed, lambda i: len(triplets(i, "gate")) >= 40)
    cameras["gate-tir"].state = "live"
    back = watch(feed, lambda i: len(triplets(i, "gate")) >= 60)
    feed.close()
    (lost,) = notices(gone, CameraChange)
    assert (lost.rig, lost.modality, lost.state, lost.reason) == (
        "gate", "tir", "stalled", "as told",
    )  # fmt: skip
    assert all(set(t.frames) == {"rgb", "nir"} for t in triplets(gone, "gate")[10:])
    (returned,) = notices(back, CameraChange)
    assert returned.state == "live"
    assert sum(len(t.frames) == 3 for t in triplets(back, "gate")) >= 20


def test_rigs_come_and_go_and_those_that_stay_are_not_touched(cameras):
    feed = LiveFeed([rig("gate"), rig("yard")], CONFIG)
    watch(feed, lambda i: triplets(i, "gate") and triplets(i, "yard"))
    stays = cameras["gate-rgb"]
    feed.reconfigure([rig("gate"), rig("door"), rig("bad", rgb="bad://x")])
    seen = watch(feed, lambda i: len(triplets(i, "door")) >= 5)
    feed.close()
    assert [n.rig for n in notices(seen, RigEnds)] == ["yard"]
    assert [n.rig.name for n in notices(seen, RigBegins)] == ["door"]
    assert cameras["gate-rgb"] is stays
    assert cameras["yard-rgb"].closed
    gate = [t.time_s for t in triplets(seen, "gate")]
    assert np.diff(gate).max() < 0.2
    assert set(feed.statistics()) == {"gate", "yard", "door"}


def test_slow_work_raises_the_load_and_what_is_old_is_dropped(cameras):
    feed = LiveFeed([rig("gate")], CONFIG)
    watch(feed, lambda i: triplets(i, "gate"))
    slow = watch(feed, lambda i: i[-1].load == 3, slow_s=0.12)
    slow += watch(feed, lambda i: len(triplets(i, "gate")) >= 20, slow_s=0.12)
    assert [load for load in (1, 2, 3) if any(i.load == load for i in slow)] == [1, 2, 3]
    ages_s = [i.now_s - d.triplet.time_s for i in slow for d in i.due]
    assert max(ages_s) < CONFIG.live.max_age_s + 0.1  # what is worked on is never old
    assert feed.statistics()["gate"].skipped.total() > 0
    feed.close()


def test_a_picture_of_another_size_is_scaled_to_what_homographies_are_for(cameras):
    feed = LiveFeed([rig("gate")], CONFIG)
    watch(feed, lambda i: triplets(i, "gate"))
    cameras["gate-nir"].size = (72, 128)
    seen = watch(feed, lambda i: len(triplets(i, "gate")) >= 30)
    feed.close()
    shapes = {t.frames["nir"].picture.shape for t in triplets(seen, "gate") if "nir" in t.frames}
    assert shapes == {(36, 64, 3)}


def test_a_rig_that_can_never_work_is_refused_at_the_start(cameras):
    with pytest.raises(InputError, match="bad"):
        LiveFeed([rig("gate"), rig("bad", rgb="bad://x")], CONFIG)
    assert all(camera.closed for camera in cameras.values())


def test_it_stops_at_once_from_another_thread(cameras):
    feed = LiveFeed([rig("gate")], CONFIG)
    threading.Timer(0.3, feed.stop).start()
    began_s = time.monotonic()
    list(feed)
    assert time.monotonic() - began_s < 1.0
    feed.close()


def test_a_reference_that_comes_late_lets_the_rig_begin_late(cameras):
    with ThreadPoolExecutor(1) as pool:
        live = live_rig.LiveRig(rig("gate"), CONFIG, pool)
        cameras["gate-rgb"].state = "connecting"
        cameras["gate-rgb"]._given = 0
        until_s = time.monotonic() + 0.8
        told = []
        while time.monotonic() < until_s:
            told += live.poll()[0]
            time.sleep(0.005)
        assert not any(isinstance(n, RigBegins) for n in told)
        cameras["gate-rgb"].state = "live"
        until_s = time.monotonic() + 5
        while not any(isinstance(n, RigBegins) for n in told):
            assert time.monotonic() < until_s
            told += live.poll()[0]
            time.sleep(0.005)
        assert [type(n) for n in live.leave()] == [RigEnds]


def test_settings_of_live_cameras_are_checked():
    with pytest.raises(InputError, match=r"live\.drain_s must be over 0"):
        replace(LiveConfig(), drain_s=0.0)
