"""Cameras that fail, against a real RTSP server: what is noticed when, what heals, what is lost."""

import time
from dataclasses import replace

import pytest

from runtime.config import SourceConfig
from runtime.sources import open_source
from tests.bad_network import Proxy, SilentServer
from tests.numbered_clips import FPS, numbered_clip
from tests.reliability import record
from tests.rtsp import RtspServer, require_rtsp_server
from tests.viewer import CLIP_FRAMES, Viewer

QUICK = SourceConfig(read_timeout_s=1.5, connect_timeout_s=1.5, stalled_after_s=0.4)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    require_rtsp_server()
    folder = tmp_path_factory.mktemp("clips")
    return {
        "small": numbered_clip(folder / "small.mp4", CLIP_FRAMES),
        "wide": numbered_clip(folder / "wide.mp4", 100, (256, 128)),
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tmp_path_factory.mktemp("units")


@pytest.fixture
def server(clips, made):
    with RtspServer({"rgb": clips["small"]}, made) as running:
        yield running


@pytest.fixture
def view():
    opened = []

    def open_viewer(uri, config=QUICK):
        opened.append(open_source(uri, config))
        return Viewer(opened[-1])

    yield open_viewer
    for source in opened:
        began_s = time.monotonic()
        source.close()
        assert (
            time.monotonic() - began_s < 1.0
        )  # promised by Source.close, whatever happened before
        assert source.status().state == "ended"


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_camera_is_read_live_and_whole(server, view, transport):
    viewer = view(f"{server.url('rgb')}?transport={transport}")
    viewer.until_more(40)
    assert viewer.missing() == 0
    assert viewer.states[-1] == "live"
    assert [f.index for f in viewer.frames] == list(range(len(viewer.frames)))
    assert viewer.source.status().dropped == 0


def test_capture_times_are_the_cameras_own_once_it_reports_them(server, view):
    viewer = view(server.url("rgb"))
    viewer.until(lambda v: v.frames and v.frames[-1].time_source == "rtcp")
    assert viewer.frames[0].time_source == "pts"
    viewer.until_more(20)
    first = next(f for f in viewer.frames if f.time_source == "rtcp")
    assert first.connection == viewer.frames[0].connection + 1  # another clock
    assert viewer.source.status().time_source == "rtcp"
    ours_s = time.time() - time.monotonic()
    for frame in viewer.frames:
        if frame.time_source == "rtcp":  # server and we share a clock
            assert -0.001 < frame.arrival_s + ours_s - frame.time_s < 0.5
            on_grid = (frame.time_s - first.time_s) * FPS
            assert abs(on_grid - round(on_grid)) < 0.1  # the camera's own, not our arrivals


def test_server_killed_and_restarted(server, view):
    viewer = view(server.url("rgb"))
    viewer.until_more(20)
    killed_s = time.monotonic()
    server.stop()
    detected_s = viewer.until_state("lost")
    viewer.watch(1.0)
    last, before = len(viewer.frames) - 1, viewer.frames[-1]
    assert viewer.source.status().state == "lost"
    assert "127.0.0.1" not in viewer.source.status().reason  # it says why, not where
    server.start()
    returned_s = time.monotonic()
    viewer.until_more()
    back = viewer.frames[-1]
    recovery_s = back.arrival_s - returned_s
    assert recovery_s < 3.0  # issue: reconnect within 3 s of the server's return
    assert back.connection == before.connection + 1
    assert back.index == before.index + 1
    assert viewer.source.status().reconnects == 1
    record(
        "RTSP server killed and restarted",
        detection_s=detected_s - killed_s,
        recovery_s=recovery_s,
        frames_lost=viewer.lost(last),
    )


def test_server_that_accepts_but_sends_nothing(clips, made, view):
    silent = SilentServer()
    begun_s = time.monotonic()
    with silent:
        viewer = view(f"rtsp://127.0.0.1:{silent.port}/rgb")
        detected_s = viewer.until_state("lost")
        assert silent.connections
        assert viewer.source.status().reason == "no answer within 1.5 s"
    with RtspServer({"rgb": clips["small"]}, made, port=silent.port):
        returned_s = time.monotonic()
        recovery_s = viewer.until_more() - returned_s
    assert recovery_s < 3.0
    record(
        "RTSP server accepts but sends nothing",
        detection_s=detected_s - begun_s,
        recovery_s=recovery_s,
    )


def test_camera_freezes_and_thaws(server, view):
    viewer = view(server.url("rgb"))
    viewer.until_more(10)
    first = len(viewer.frames) - 1
    frozen_s = time.monotonic()
    server.freeze("rgb")
    detected_s = viewer.until_state("stalled")
    assert "no picture for" in viewer.source.status().reason
    thawed_s = time.monotonic()
    server.thaw("rgb")
    viewer.until_more(3)
    assert viewer.states[-1] == "live"
    assert viewer.source.status().reconnects == 0  # the connection held
    record(
        "camera freezes mid-stream, connection held",
        detection_s=detected_s - frozen_s,
        recovery_s=viewer.frames[-3].arrival_s - thawed_s,
        frames_lost=viewer.missing(first),
    )


def test_camera_frozen_for_longer_than_the_read_timeout(server, view):
    viewer = view(server.url("rgb"))
    viewer.until_more(10)
    frozen_s = time.monotonic()
    server.freeze("rgb")
    detected_s = viewer.until_state("lost")
    last, before = len(viewer.frames) - 1, viewer.frames[-1]
    assert viewer.source.status().reason.startswith("nothing came for 1.")
    assert "stalled" in viewer.states
    thawed_s = time.monotonic()
    server.thaw("rgb")
    viewer.until_more()
    back = viewer.frames[-1]
    assert back.arrival_s - thawed_s < 3.0
    assert back.connection > before.connection
    record(
        "camera freezes mid-stream, connected to anew",
        detection_s=detected_s - frozen_s,
        recovery_s=back.arrival_s - thawed_s,
        frames_lost=viewer.lost(last),
    )


def test_corrupt_packets(server, view):
    with Proxy(server.port) as proxy:
        viewer = view(f"rtsp://127.0.0.1:{proxy.port}/rgb")
        viewer.until_more(10)
        first = len(viewer.frames) - 1
        proxy.harm = 0.1
        harmed_s = time.monotonic()
        detected_s = viewer.until(
            lambda v: v.source.status().dropped > 0 or v.source.status().reconnects > 0
        )
        viewer.watch(2.0)
        proxy.harm = 0.0
        healed_s = time.monotonic()
        viewer.until(lambda v: v.frames[-1].arrival_s > healed_s)
        recovery_s = viewer.frames[-1].arrival_s - healed_s
        viewer.until_more(20)
        assert viewer.missing(len(viewer.frames) - 10) == 0
        record(
            "bits flip in one packet of ten",
            detection_s=detected_s - harmed_s,
            recovery_s=recovery_s,
            frames_lost=viewer.lost(first),
        )


def test_change_of_resolution(server, clips, view):
    viewer = view(server.url("rgb"))
    viewer.until_more(10)
    last = len(viewer.frames) - 1
    changed_s = time.monotonic()
    server.play("rgb", clips["wide"])
    viewer.until(lambda v: v.frames[-1].picture.shape == (128, 256, 3))
    got_s = viewer.frames[-1].arrival_s
    shapes = {frame.picture.shape for frame in viewer.frames}
    assert shapes == {(96, 160, 3), (128, 256, 3)}
    viewer.until_more(20)
    assert viewer.states[-1] == "live"
    assert viewer.source.status().reconnects == 0
    assert viewer.source.status().dropped == 0
    record("resolution changes", recovery_s=got_s - changed_s, frames_lost=viewer.lost(last))


@pytest.mark.parametrize("seconds", [5.0, -5.0])
def test_time_stamps_jump(server, view, seconds):
    viewer = view(server.url("rgb"))
    viewer.until_more(10)
    viewer.until(lambda v: v.frames[-1].time_source == "rtcp")
    viewer.until_more(5)
    before = viewer.frames[-1]
    first = len(viewer.frames) - 1
    jumped_s = time.monotonic()
    server.jump("rgb", seconds)
    viewer.until(lambda v: v.frames[-1].connection > before.connection)
    after = viewer.frames[-1]
    shift_s = (after.time_s - before.time_s) - (after.arrival_s - before.arrival_s)
    assert abs(shift_s - seconds) < 0.5
    viewer.until_more(20)
    assert viewer.frames[-1].connection == before.connection + 1  # one jump, counted once
    assert viewer.missing(first) == 0
    record(
        f"time stamps jump {'forward' if seconds > 0 else 'back'} by {abs(seconds):.0f} s",
        detection_s=after.arrival_s - jumped_s,
        recovery_s=0.0,
        frames_lost=viewer.missing(first),
    )


def test_other_cameras_do_not_notice(clips, made, view):
    with RtspServer({"rgb": clips["small"], "nir": clips["small"]}, made) as server:
        good, bad = view(server.url("rgb")), view(server.url("nir"))
        good.until_more(5)
        bad.until_more(5)
        server.freeze("nir")
        first = len(good.frames)
        good.until_more(25)
        assert good.missing(first) == 0
        assert bad.until_state("stalled")


def test_a_slow_reader_gets_the_newest(server, view):
    viewer = view(server.url("rgb"), replace(QUICK, queue_frames=4))
    viewer.until_more(5)
    taken = viewer.source.status().frames
    while viewer.source.status().frames < taken + 15:
        time.sleep(0.05)
    dropped = viewer.source.status().dropped
    assert 8 <= dropped <= 15
    viewer.until_more(1)
    assert viewer.frames[-1].index >= taken + 8


def test_the_server_ends_with_the_process_that_started_it(clips, made):
    server = RtspServer({"rgb": clips["small"]}, made)
    server.start()
    server._process.stdin.close()  # as when this process dies
    assert server._process.wait(5.0) == 0
    server._process.stdout.close()


def test_in_ci_a_missing_server_is_a_failure(monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no module named gi >&2; exit 1\n")
    python.chmod(0o755)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="rtsp-server"):
        require_rtsp_server(str(python))
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception):
        require_rtsp_server(str(python))
