"""Frames are paired by true time whatever clocks, jitter and losses do to them."""

import numpy as np
import pytest

from runtime.sources import Frame
from runtime.sync.clocks import FixedClocks
from runtime.sync.synchroniser import Synchroniser

PICTURE = np.zeros((2, 2, 3), np.uint8)
PERIOD_S = 0.04
CAMERAS = ("rgb", "nir", "tir")


def frame(time_s: float, index: int = 0) -> Frame:
    return Frame(PICTURE, time_s, "pts", index, time_s)


def simulate(seed, offsets_s, loss=0.01, jitter_s=0.003, seconds=40.0):
    """Return each camera's frames and the true time of each, by modality."""
    rng = np.random.default_rng(seed)
    frames, truth = {}, {}
    for camera in CAMERAS:
        phase = 0.0 if camera == "rgb" else rng.uniform(-0.01, 0.01)
        true = np.arange(0, seconds, PERIOD_S) + phase
        true = true[rng.random(len(true)) >= loss]
        stamps = true + offsets_s[camera] + rng.normal(0, jitter_s, len(true)).clip(-0.01, 0.01)
        frames[camera] = [frame(t, i) for i, t in enumerate(stamps.tolist())]
        truth[camera] = true
    return frames, truth


def run(synchroniser, frames):
    """Feed the frames that are wanted; return all triplets."""
    queues = {camera: list(items) for camera, items in frames.items()}
    triplets = []
    while True:
        while (triplet := synchroniser.pop()) is not None:
            triplets.append(triplet)
        wanted = synchroniser.wants()
        if not wanted:
            return triplets
        for camera in wanted:
            if queues[camera]:
                synchroniser.push(camera, queues[camera].pop(0))
            else:
                synchroniser.end(camera)


def make(offsets_s=None, tolerance_s=0.022, buffer_frames=32, cameras=CAMERAS, **waits):
    return Synchroniser(
        cameras, "rgb", FixedClocks(offsets_s or {}), tolerance_s, buffer_frames, **waits
    )


@pytest.mark.parametrize("seed", range(4))
def test_triplets_show_one_instant(seed):
    offsets_s = {"rgb": 0.137, "nir": -0.117, "tir": 0.05}
    frames, truth = simulate(seed, offsets_s)
    known = {camera: value + 0.003 for camera, value in offsets_s.items()}  # estimates err a little
    synchroniser = make(known)
    triplets = run(synchroniser, frames)
    spreads = [np.ptp([truth[camera][f.index] for camera, f in t.frames.items()]) for t in triplets]
    assert np.percentile(spreads, 95) <= 0.02
    assert max(spreads) < PERIOD_S
    paired = sum(len(t.frames) for t in triplets)
    total = sum(len(items) for items in frames.values())
    assert paired + synchroniser.statistics.unpaired.total() == total
    assert paired >= 0.995 * total
    assert sum("rgb" in t.frames for t in triplets) == len(frames["rgb"])
    assert [t.time_s for t in triplets] == sorted(t.time_s for t in triplets)


def test_a_lost_frame_leaves_a_gap_and_no_shift():
    frames = {c: [frame(i * PERIOD_S, i) for i in range(10)] for c in CAMERAS}
    del frames["nir"][4]
    triplets = run(make(), frames)
    assert [set(CAMERAS) - set(t.frames) for t in triplets] == [
        {"nir"} if i == 4 else set() for i in range(10)
    ]
    for triplet in triplets:
        assert len({f.index for f in triplet.frames.values()}) == 1


def test_a_lost_reference_still_gives_what_the_others_saw():
    frames = {c: [frame(i * PERIOD_S, i) for i in range(10)] for c in CAMERAS}
    del frames["rgb"][0], frames["rgb"][5:7]
    triplets = run(make(), frames)
    assert [sorted(t.frames) for t in triplets] == [
        ["nir", "tir"] if i in (0, 6, 7) else ["nir", "rgb", "tir"] for i in range(10)
    ]


def test_clips_of_unequal_length_go_on_with_masks():
    lengths = {"rgb": 10, "nir": 4, "tir": 12}
    frames = {c: [frame(i * PERIOD_S) for i in range(n)] for c, n in lengths.items()}
    synchroniser = make()
    triplets = run(synchroniser, frames)
    assert len(triplets) == 12
    assert synchroniser.statistics.missing == {"rgb": 2, "nir": 8}


def test_it_waits_until_no_nearer_frame_can_come():
    synchroniser = make(cameras=("rgb", "nir"))
    synchroniser.push("rgb", frame(1.0))
    synchroniser.push("nir", frame(0.99))
    assert synchroniser.pop() is None
    assert synchroniser.wants() == ["nir"]
    synchroniser.push("nir", frame(1.005))
    triplet = synchroniser.pop()
    assert triplet is not None
    assert triplet.frames["nir"].time_s == 1.005
    assert synchroniser.statistics.unpaired == {"nir": 1}


def test_a_lost_camera_is_masked_until_it_gives_a_frame_again():
    synchroniser = make(cameras=("rgb", "nir"))
    synchroniser.push("rgb", frame(1.0))
    assert synchroniser.pop() is None
    synchroniser.lose("nir")
    triplet = synchroniser.pop()
    assert triplet is not None
    assert list(triplet.frames) == ["rgb"]
    synchroniser.push("nir", frame(1.04))
    assert synchroniser.pop() is None
    synchroniser.push("rgb", frame(1.04))
    triplet = synchroniser.pop()
    assert triplet is not None
    assert set(triplet.frames) == {"rgb", "nir"}


def test_no_camera_is_waited_for_longer_than_allowed():
    synchroniser = make(cameras=("rgb", "nir"), max_wait_s=0.2)
    synchroniser.push("nir", frame(0.5))
    synchroniser.push("rgb", frame(0.5))
    assert synchroniser.pop(0.5) is not None
    synchroniser.push("rgb", frame(0.54))
    assert [synchroniser.pop(now_s) is None for now_s in (0.55, 0.69, 0.74)] == [True, True, False]


def test_a_silent_camera_delays_only_the_first_triplet():
    synchroniser = make(cameras=("rgb", "nir"), max_wait_s=0.2)
    synchroniser.push("nir", frame(0.96))
    for i in range(7):
        synchroniser.push("rgb", frame(1.0 + i * PERIOD_S))
    assert [synchroniser.pop(1.24) is not None for _ in range(9)] == [True] * 8 + [False]


def test_overtaken_frames_are_put_in_order():
    synchroniser = make(cameras=("rgb", "nir"), max_wait_s=0.2, reorder_s=0.1)
    for i in (0, 2, 1, 3):
        synchroniser.push("rgb", frame(i * PERIOD_S, i))
    for i in (0, 1, 3, 2):
        synchroniser.push("nir", frame(i * PERIOD_S, i))
    triplets = [synchroniser.pop(0.12) for _ in range(4)]
    assert [[f.index for f in t.frames.values()] for t in triplets if t] == [
        [i, i] for i in range(4)
    ]
    assert synchroniser.statistics.unpaired.total() == 0


def test_a_late_frame_is_dropped_and_counted():
    synchroniser = make(cameras=("rgb", "nir"), max_wait_s=0.2)
    synchroniser.push("rgb", frame(1.0))
    assert synchroniser.pop(1.2) is not None
    synchroniser.push("nir", frame(0.99))
    assert synchroniser.statistics.late == {"nir": 1}
    assert synchroniser.pop(2.0) is None


def test_a_camera_of_twice_the_rate_makes_no_triplets_of_its_own():
    frames = {
        "rgb": [frame(i * 0.08) for i in range(20)],
        "nir": [frame(i * 0.04) for i in range(40)],
    }
    triplets = run(make(cameras=("rgb", "nir")), frames)
    assert sum("rgb" not in t.frames for t in triplets) <= 4  # until the period is known


def test_buffers_are_bounded():
    synchroniser = make(buffer_frames=5)
    for i in range(50):
        synchroniser.push("tir", frame(i * PERIOD_S))
    assert synchroniser.statistics.unpaired == {"tir": 45}


def test_one_camera_alone():
    frames = {"rgb": [frame(i * PERIOD_S) for i in range(5)]}
    assert len(run(make(cameras=("rgb",)), frames)) == 5


def test_a_lost_frame_does_not_shift_cameras_half_a_frame_out_of_step():
    """Each near infrared frame is 19 ms before one of the reference and 21 ms after another."""
    frames = {
        "rgb": [frame(i * PERIOD_S, i) for i in range(40)],
        "nir": [frame(i * PERIOD_S - 0.019, i) for i in range(40) if i != 10],
    }
    triplets = run(make(cameras=("rgb", "nir")), frames)
    pairs = [(t.frames["rgb"].index, t.frames["nir"].index) for t in triplets if len(t.frames) == 2]
    assert pairs == [(i, i) for i in range(40) if i != 10]
