"""Registration at live cameras: when pictures were taken, and at which address."""

import time

import av
import numpy as np
import pytest

from calibration.registering.footage import JUMP_S, LiveClock, _frames, _transport, shots
from tests.numbered_clips import FPS, number_of, numbered_clip
from tests.rtsp import RtspServer, require_rtsp_server

STEP_S = 1 / FPS


def test_who_looks_too_slowly_does_not_bend_time():
    """The burst of an opening, then a second of work every 40 pictures."""
    clock = LiveClock()
    arrivals = 100.0 + STEP_S * np.arange(200)
    arrivals[:20] = arrivals[19]
    arrivals[80:105] = arrivals[105]
    times = [clock.time_s(5.0 + STEP_S * i, float(at)) for i, at in enumerate(arrivals)]
    assert times[20:] == pytest.approx(100.0 + STEP_S * np.arange(20, 200))


@pytest.mark.parametrize("jump_s", [-2 * JUMP_S, 2 * JUMP_S])
def test_stamps_that_jump_are_followed(jump_s):
    clock = LiveClock()
    times = [clock.time_s(STEP_S * i + jump_s * (i >= 50), STEP_S * i) for i in range(100)]
    assert times == pytest.approx(STEP_S * np.arange(100))


def test_without_stamps_arrivals_must_do():
    assert LiveClock().time_s(None, 7.0) == 7.0


@pytest.mark.parametrize(
    ("uri", "address", "transport"),
    [
        ("rtsp://u:p@cam/1", "rtsp://u:p@cam/1", "tcp"),
        ("rtsp://cam/1?transport=udp", "rtsp://cam/1", "udp"),
        ("rtsp://cam/1?channel=2&transport=udp&token=a", "rtsp://cam/1?channel=2&token=a", "udp"),
        ("/dev/video0", "/dev/video0", "tcp"),
    ],
)
def test_the_stream_s_own_option_is_not_the_camera_s(uri, address, transport):
    assert _transport(uri) == (address, transport)


class Packet:
    """Decodes to what it holds."""

    def __init__(self, *frames):
        self.frames = frames

    def decode(self):
        if not self.frames:
            raise av.InvalidDataError(1094995529, "Invalid data found when processing input")
        return list(self.frames)


class Container:
    def demux(self, video):
        return iter([Packet(), Packet("a"), Packet(), Packet("b", "c")])


def test_damaged_packets_of_a_live_camera_are_passed_over():
    assert list(_frames(Container(), live=True)) == ["a", "b", "c"]
    with pytest.raises(av.InvalidDataError):
        list(_frames(Container(), live=False))


def test_a_live_camera_that_is_looked_at_in_bursts(tmp_path):
    require_rtsp_server()
    clip = numbered_clip(tmp_path / "clip.mp4", 250)
    seen = []
    with RtspServer({"rgb": clip}, tmp_path) as server:
        for time_s, picture in shots("rgb", server.url("rgb") + "?transport=tcp", 3.0, STEP_S):
            seen.append((time_s, number_of(picture)))
            if len(seen) % 25 == 0:
                time.sleep(0.5)
    times, numbers = np.array(seen).T
    assert len(seen) > 50
    late_s = times - STEP_S * np.unwrap(numbers, period=250)
    assert np.ptp(late_s) < STEP_S
