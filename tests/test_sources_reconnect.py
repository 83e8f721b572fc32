"""The life of a live source on a camera that does as the test says."""

import threading
import time

import numpy as np
import pytest

from runtime.config import SourceConfig
from runtime.sources import End, Frame, NothingYet
from runtime.sources import live as live_module
from runtime.sources.camera import CameraLost, CameraRefused, Shot
from runtime.sources.live import Backoff, LiveSource

PICTURE = np.zeros((2, 2, 3), np.uint8)
QUICK = SourceConfig(backoff_min_s=0.01, backoff_max_s=0.02, stalled_after_s=0.05)
LONGEST_S = 5.0
SURPRISE = "cannot parse 'rtsp://me:secret@camera/1'"


class Script:
    """Connections one after the other: an exception, or what a camera does read by read."""

    def __init__(self, *connections):
        self.connections = list(connections)
        self.attempts = 0
        self.closed = 0

    def __call__(self):
        self.attempts += 1
        what = self.connections.pop(0) if self.connections else []
        if isinstance(what, Exception):
            raise what
        return Scripted(self, list(what))


class Scripted:
    def __init__(self, script, reads):
        self.script, self.reads, self.damaged = script, reads, 0

    def read(self):
        what = self.reads.pop(0) if self.reads else None
        if isinstance(what, Exception):
            raise what
        if callable(what):
            what()
        if isinstance(what, int):
            self.damaged += what
        time.sleep(0.005)
        return [Shot(PICTURE, time.monotonic())] if what == "picture" else []

    def close(self):
        self.script.closed += 1


@pytest.fixture
def start():
    opened = []

    def open_live(script, config=QUICK):
        opened.append(LiveSource("scripted", script, config))
        return opened[-1]

    yield open_live
    for source in opened:
        source.close()
        assert not any(t.name == "decode scripted" for t in threading.enumerate())


def wait(condition):
    end_s = time.monotonic() + LONGEST_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.002)


def test_it_starts_connecting_and_is_live_with_the_first_picture(start):
    go = threading.Event()
    source = start(Script([go.wait, "picture"]))
    assert source.status().state == "connecting"
    go.set()
    assert isinstance(source.read(LONGEST_S), Frame)
    assert source.status().state == "live"


def test_it_comes_back_after_every_kind_of_loss(start, caplog):
    script = Script(
        CameraLost("refused"), ["picture", CameraLost("cut")], ValueError(SURPRISE), ["picture"]
    )
    source = start(script)
    frames = []
    while len(frames) < 2:
        reading = source.read(LONGEST_S)
        assert isinstance(reading, Frame)
        frames.append(reading)
    assert [f.connection for f in frames] == [0, 1]
    assert [f.index for f in frames] == [0, 1]
    assert source.status().reconnects == 1
    assert script.closed == 1  # the connection that was cut
    assert "ValueError: cannot parse 'rtsp://***@camera/1'; trying again" in caplog.text
    assert "secret" not in caplog.text


def test_status_says_what_happened_and_since_when(start, caplog):
    before_s = time.time()
    source = start(Script(*[CameraLost("no route to host")] * 1000))
    wait(lambda: source.status().state == "lost")
    first = source.status()
    time.sleep(0.1)
    assert source.status() == first  # since the first failure, however many there were
    assert before_s <= first.since_s <= time.time()
    assert first.reason == "no route to host"
    assert source.read(0.0) == NothingYet()
    assert len([r for r in caplog.records if r.name == live_module.__name__]) == 1


def test_a_camera_whose_read_hangs_is_called_stalled_all_the_same(start):
    go = threading.Event()
    source = start(Script(["picture", go.wait, "picture"]))
    source.read(LONGEST_S)
    wait(lambda: source.status().state == "stalled")
    assert source.status().reason.startswith("no picture for 0.")
    go.set()
    wait(lambda: source.status().state == "live")


def test_a_camera_that_sends_but_gives_no_picture_is_connected_to_anew(start):
    config = SourceConfig(picture_timeout_s=0.1, backoff_min_s=0.01, backoff_max_s=0.02)
    source = start(Script([1] * 1000, ["picture"]), config)
    assert isinstance(source.read(LONGEST_S), Frame)
    status = source.status()
    assert status.dropped > 3  # what came damaged is counted
    assert status.reconnects == 0  # the first connection never gave a picture


def test_who_is_refused_does_not_ask_again_and_again(start):
    script = Script(*[CameraRefused("401")] * 1000)
    source = start(script)
    wait(lambda: source.status().state == "lost")
    time.sleep(0.2)
    assert script.attempts == 1


def test_close_is_prompt_while_the_camera_hangs_in_its_opening():
    go = threading.Event()
    closed = []

    class Late:
        damaged = 0

        def close(self):
            closed.append(True)

    def connect():
        go.wait(30.0)
        return Late()

    source = LiveSource("hanging", connect, QUICK)
    began_s = time.monotonic()
    source.close()
    assert time.monotonic() - began_s < 1.0
    assert source.read(0.0) == End(0)
    assert source.status().state == "ended"
    go.set()  # when the library lets go at last, so does the thread, and the camera is closed
    wait(lambda: not any(t.name == "decode hanging" for t in threading.enumerate()))
    assert closed == [True]


def test_waits_double_up_to_the_longest_and_begin_again():
    backoff = Backoff(0.25, 2.0)
    for _ in range(200):
        waits_s = [backoff.next_s() for _ in range(6)]
        longest_s = [0.25, 0.5, 1.0, 2.0, 2.0, 2.0]
        assert all(0.5 * m <= w <= m for w, m in zip(waits_s, longest_s, strict=True))
        backoff.reset()
    assert len({Backoff(0.25, 2.0).next_s() for _ in range(20)}) > 10  # each box on its own
