"""What holds whatever arrives: random frames, orders, gaps and clocks that go backwards."""

from collections import Counter

import numpy as np
import pytest

from runtime.sources import Frame
from runtime.sync.clocks import ClockTracker, FixedClocks, TrackedClocks
from runtime.sync.envelope import WINDOW_S
from runtime.sync.synchroniser import Synchroniser

PICTURE = np.zeros((1, 1, 3), np.uint8)
CAMERAS = ("rgb", "nir", "tir")
MAX_WAIT_S = 0.3
REORDER_S = 0.1
BUFFER = 8
TOLERANCE_S = 0.022


def wild_frames(rng, count=600):
    """Frames of every camera in order of arrival; some stamps jump, repeat or run backwards."""
    arrival_s, clock_s, frames = 100.0, dict.fromkeys(CAMERAS, 0.0), []
    connections = Counter()
    for index in range(count):
        arrival_s += rng.choice(
            [0.0, rng.exponential(0.012), rng.exponential(0.4)], p=[0.2, 0.77, 0.03]
        )
        camera = CAMERAS[rng.integers(3)]
        kind = rng.random()
        if kind < 0.02:
            clock_s[camera] += rng.uniform(-10, 10)
        connections[camera] += kind > 0.99
        stamp_s = arrival_s + clock_s[camera] - rng.exponential(0.02) - 0.2 * (rng.random() < 0.05)
        frames.append(
            (camera, Frame(PICTURE, stamp_s, "pts", index, arrival_s, connections[camera]))
        )
    return frames


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("tracked", [False, True])
def test_promises_of_the_synchroniser(seed, tracked):
    rng = np.random.default_rng(seed)
    clocks = TrackedClocks({}) if tracked else FixedClocks({})
    synchroniser = Synchroniser(CAMERAS, "rgb", clocks, TOLERANCE_S, BUFFER, MAX_WAIT_S, REORDER_S)
    waiting, triplets, pushed, now_s = {}, [], Counter(), 0.0
    for camera, frame in wild_frames(rng):
        now_s = frame.arrival_s
        synchroniser.push(camera, frame)
        pushed[camera] += 1
        waiting[frame.index] = frame
        while (triplet := synchroniser.pop(now_s)) is not None:
            triplets.append(triplet)
        assert sum(map(len, synchroniser._buffers.values())) <= BUFFER * len(CAMERAS)
    while (triplet := synchroniser.pop(now_s + MAX_WAIT_S + 1e-6)) is not None:
        triplets.append(triplet)

    assert (
        sum(map(len, synchroniser._buffers.values())) == 0
    )  # none is held for longer than it may wait
    used = Counter(frame.index for triplet in triplets for frame in triplet.frames.values())
    assert max(used.values(), default=0) <= 1
    times = [triplet.time_s for triplet in triplets]
    assert times == sorted(times)
    assert all(triplet.frames for triplet in triplets)
    assert max(triplet.skew_s for triplet in triplets) <= 2 * TOLERANCE_S
    paired = Counter(camera for triplet in triplets for camera in triplet.frames)
    unpaired = synchroniser.statistics.unpaired
    assert {m: paired[m] + unpaired[m] for m in CAMERAS} == dict(pushed)


@pytest.mark.parametrize("seed", range(10))
def test_no_frame_of_the_reference_waits_longer_than_allowed(seed):
    """Asked every 10 ms, a triplet is given at most ``max_wait_s`` after its anchor arrived."""
    rng = np.random.default_rng(seed)
    synchroniser = Synchroniser(
        CAMERAS, "rgb", FixedClocks({}), TOLERANCE_S, BUFFER, MAX_WAIT_S, REORDER_S
    )
    now_s, frames = 0.0, []
    for camera in CAMERAS:
        stamps = np.arange(0, 20, 0.04) + rng.uniform(0, 0.02)
        stamps = stamps[rng.random(len(stamps)) > 0.3]
        arrivals = stamps + rng.exponential(0.05, len(stamps)) + (0.8 if camera == "tir" else 0)
        frames += [
            (a, camera, Frame(PICTURE, s, "pts", i, a))
            for i, (s, a) in enumerate(zip(stamps.tolist(), arrivals.tolist(), strict=True))
        ]
    for arrival_s, camera, frame in sorted(frames, key=lambda item: item[0]):
        while now_s < arrival_s:
            while (triplet := synchroniser.pop(now_s)) is not None:
                anchor = triplet.frames.get("rgb") or next(iter(triplet.frames.values()))
                assert now_s - anchor.arrival_s <= MAX_WAIT_S + 0.0101
            now_s = min(arrival_s, now_s + 0.01)
        synchroniser.push(camera, frame)


@pytest.mark.parametrize("seed", range(10))
def test_a_tracker_takes_any_stamps_and_stays_small(seed):
    rng = np.random.default_rng(seed)
    tracker = ClockTracker()
    arrival_s = 1e5
    for _ in range(3000):
        arrival_s += rng.exponential(0.04)
        stamp_s = rng.choice(
            [arrival_s, rng.normal(0, 1e9), 0.0, -arrival_s], p=[0.9, 0.04, 0.03, 0.03]
        )
        time_s = tracker.track(float(stamp_s), arrival_s, int(rng.random() < 0.01))
        assert time_s is None or time_s <= arrival_s + 1e-6  # nothing arrives before it was taken
        assert len(tracker._envelope._points) <= WINDOW_S + 2
