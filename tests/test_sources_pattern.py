"""The pattern is a live source without a camera: what holds of every live source holds of it."""

import threading
import time

import numpy as np

from runtime.config import SourceConfig
from runtime.sources import End, Frame, NothingYet, open_source


def frames_of(source, count):
    frames = []
    while len(frames) < count:
        reading = source.read(2.0)
        assert isinstance(reading, Frame), reading
        frames.append(reading)
    return frames


def test_a_pattern_gives_pictures_at_its_rate():
    source = open_source("pattern://?size=64x36&fps=50")
    frames = frames_of(source, 10)
    source.close()
    assert {frame.picture.shape for frame in frames} == {(36, 64, 3)}
    assert {frame.picture.dtype for frame in frames} == {np.dtype(np.uint8)}
    steps_s = np.diff([frame.time_s for frame in frames])
    assert np.allclose(steps_s / 0.02, np.round(steps_s / 0.02), atol=1e-3)  # on its own grid
    assert abs(frames[0].time_s - time.time()) < 5.0
    assert source.live
    assert not np.array_equal(frames[0].picture, frames[-1].picture)


def test_the_queue_drops_the_oldest_and_counts_them():
    source = open_source("pattern://?size=16x16&fps=200", SourceConfig(queue_frames=3))
    frames_of(source, 1)
    while source.status().dropped < 20:
        time.sleep(0.01)
    late = frames_of(source, 1)[0]
    assert late.index >= 20
    status = source.status()
    source.close()
    assert status.state == "live"
    assert status.frames >= late.index
    assert status.reconnects == 0
    assert status.time_source == "pts"


def test_reading_waits_no_longer_than_its_timeout():
    source = open_source("pattern://?size=16x16&fps=0.1")
    frames_of(source, 1)
    assert source.read(0.0) == NothingYet()
    assert source.read(0.05) == NothingYet()
    source.close()


def test_closing_ends_the_thread_and_wakes_the_reader():
    source = open_source("pattern://?size=16x16&fps=0.1")
    frames_of(source, 1)
    readings = []
    reader = threading.Thread(target=lambda: readings.append(source.read(30.0)))
    reader.start()
    source.close()
    reader.join(5.0)
    assert readings == [End(1)]
    assert source.status().state == "ended"
    assert not [t.name for t in threading.enumerate() if t.name.startswith("decode pattern")]
    source.close()
