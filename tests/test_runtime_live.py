"""The stream on live cameras: it recognises, outlives what fails, ends and reloads when told to."""

import json
import signal
import time
from collections import defaultdict

import pytest

from mambapro.cli import run
from runtime.stream import main
from tests.live_run import LiveRun, live_rigs, mounts
from tests.reliability import record
from tests.rtsp import RtspServer, require_rtsp_server
from tests.runtime_scenes import Walk, write_colour_model, write_scene

CAMERAS = ("rgb", "nir", "tir")
AWAY_S = 10.0


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Two rigs whose clips go round: "a" passes both, "b" one of them; 6 s a round."""
    require_rtsp_server()
    folder = tmp_path_factory.mktemp("scene")
    walks = {
        "gate": [Walk("a", 0.6, speed=150)],
        "yard": [Walk("a", 3.4, speed=150), Walk("b", 0.6, speed=150, leftwards=True)],
    }
    write_scene(folder, walks, 6.0)
    write_colour_model(folder / "person.onnx")
    return folder


@pytest.fixture(scope="module")
def units(tmp_path_factory):
    return tmp_path_factory.mktemp("units")


@pytest.fixture
def server(scene, units):
    with RtspServer(mounts(scene), units) as running:
        yield running


@pytest.fixture
def settings(scene):
    return [
        f"models.person={scene / 'person.onnx'}", "models.vehicle=null", "match.decide_after=2",
        "live.warm_up_s=1.5", "sync.tolerance_s=0.05", "source.read_timeout_s=1.5",
        "source.connect_timeout_s=1.5", "source.stalled_after_s=0.4",
    ]  # fmt: skip


def live(scene, server, folder, settings, *more):
    return LiveRun(live_rigs(scene, server, folder / "rigs.yaml"), folder / "out", settings, *more)


def recognised(events, rig=None, after=0):
    """Return whether somebody was recognised, at ``rig``, after so many events."""
    return any(
        e["event"] == "sighting" and e["known"] and rig in (None, e["rig"]) for e in events[after:]
    )


def missing(events):
    """Return how many events are not there: each run counts from 0 without gaps."""
    numbers = defaultdict(set)
    for event in events:
        run, _, number = event["id"].rpartition("-")
        numbers[run].add(int(number))
    return sum(max(seen) + 1 - len(seen) for seen in numbers.values())


def at_gate(events):
    """Return the sightings at the gate."""
    return [e for e in events if e["event"] == "sighting" and e["rig"] == "gate"]


def test_who_passes_again_is_known_and_a_replay_gives_the_same_bytes(
    scene, server, tmp_path, settings
):
    with live(scene, server, tmp_path, settings, "--record", str(tmp_path / "tape")) as stream:
        stream.until(lambda e: recognised(e, "gate") and recognised(e, "yard"))
        code, took_s = stream.stop()
    assert code == 0
    assert took_s < 10.0  # live.drain_s
    events = stream.events()
    assert len({e["id"] for e in events}) == len(events)
    assert missing(events) == 0
    record("SIGTERM during work", recovery_s=took_s, events_lost=missing(events))
    sightings = [e for e in events if e["event"] == "sighting"]
    assert {e["identity"] for e in sightings if e["rig"] == "gate"} == {"P1"} or len(
        {e["identity"] for e in sightings if e["rig"] == "gate"}
    ) == 1
    assert abs(sightings[-1]["time_s"] - time.time()) < 60
    assert sightings[-1]["modalities"] == list(CAMERAS)
    # Every track that was reported has an end: nothing of what was seen is left open.
    ended = {(e["rig"], e["track"]) for e in events if e["event"] == "track_end"}
    assert {(e["rig"], e["track"]) for e in sightings} <= ended
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["events"] == len(events)
    assert run(main, ["--replay", str(tmp_path / "tape"), "--no-video"]) == 0
    replayed = (tmp_path / "tape" / "replay" / "events.jsonl").read_bytes()
    assert replayed == (tmp_path / "out" / "events.jsonl").read_bytes()


@pytest.mark.parametrize("lost", [("tir",), ("nir", "tir"), ("rgb",)], ids="-".join)
def test_modalities_that_freeze_are_masked_and_come_back(scene, server, tmp_path, settings, lost):
    with live(scene, server, tmp_path, settings) as stream:
        stream.until(lambda e: recognised(e, "gate"))
        count = len(stream.events())
        for modality in lost:
            server.freeze(f"gate-{modality}")
        frozen_s = time.monotonic()
        seen_s = stream.until(
            lambda e: {x["modality"] for x in e[count:] if x["event"] == "camera_lost"} == set(lost)
        )
        rest = [m for m in CAMERAS if m not in lost]
        stream.until(
            lambda e: any(
                x["event"] == "sighting" and x["rig"] == "gate" and x["modalities"] == rest
                for x in e[count:]
            )
        )
        time.sleep(max(0.0, frozen_s + AWAY_S - time.monotonic()))
        for modality in lost:
            server.thaw(f"gate-{modality}")
        thawed_s = time.monotonic()
        back_s = stream.until(
            lambda e: {x["modality"] for x in e[count:] if x["event"] == "camera_back"} == set(lost)
        )
        back = len(stream.events())
        stream.until(
            lambda e: any(
                x["event"] == "sighting" and x["rig"] == "gate" and x["modalities"] == [*CAMERAS]
                for x in e[back:]
            )
        )
        assert stream.stop()[0] == 0
    events = stream.events()
    assert not any(e["event"] == "camera_lost" and e["rig"] == "yard" for e in events)
    assert recognised(events, "yard", count)  # the other rig was not disturbed
    record(
        f"{len(lost)} of 3 modalities freeze for {AWAY_S:g} s ({', '.join(lost)})",
        detection_s=seen_s - frozen_s,
        recovery_s=back_s - thawed_s,
        events_lost=missing(events),
    )


def test_all_cameras_killed_and_back(scene, server, tmp_path, settings):
    with live(scene, server, tmp_path, settings) as stream:
        stream.until(lambda e: recognised(e, "gate"))
        count = len(stream.events())
        server.stop()
        killed_s = time.monotonic()
        lost_s = stream.until(lambda e: sum(x["event"] == "camera_lost" for x in e[count:]) == 6)
        time.sleep(1.0)
        server.start()
        started_s = time.monotonic()
        back_s = stream.until(lambda e: sum(x["event"] == "camera_back" for x in e[count:]) == 6)
        back = len(stream.events())
        stream.until(lambda e: recognised(e, "gate", back))
        assert stream.stop()[0] == 0
    events = stream.events()
    assert all(e["away_s"] > 0.9 for e in events if e["event"] == "camera_back")
    record(
        "all six cameras killed and restarted",
        detection_s=lost_s - killed_s,
        recovery_s=back_s - started_s,
        events_lost=missing(events),
    )


def test_killed_during_work_it_goes_on_with_whom_it_knew(scene, server, tmp_path, settings):
    with live(scene, server, tmp_path, settings) as stream:
        stream.until(lambda e: recognised(e, "gate") and recognised(e, "yard"))
        told = stream.events()
        stream.kill()
        stream.start()
        started_s = time.monotonic()
        first_s = stream.until(lambda e: at_gate(e[len(told) :]), 90)
        assert stream.stop()[0] == 0
    events = stream.events()
    assert events[: len(told)] == told  # nothing told is taken back
    assert len({e["id"] for e in events}) == len(events)
    assert [e["id"] for e in events] == sorted(e["id"] for e in events)
    # Only "a" passes the gate ("b" may come to the yard for the first time after the kill).
    after = at_gate(events[len(told) :])
    assert all(e["known"] for e in after)
    assert {e["identity"] for e in after} == {e["identity"] for e in at_gate(told)}
    assert missing(events) == 0
    record("kill -9 during work", recovery_s=first_s - started_s, events_lost=missing(events))


def test_rigs_are_reloaded_without_disturbing_the_others(scene, server, tmp_path, settings):
    with live(scene, server, tmp_path, settings) as stream:
        stream.until(lambda e: recognised(e, "gate") and recognised(e, "yard"))
        before = stream.log().count("watching, ")
        live_rigs(scene, server, stream.rigs, ["gate"])
        stream.signal(signal.SIGHUP)
        count = len(stream.events())
        stream.until(lambda e: recognised(e, "gate", count + 2))
        assert stream.log().count("watching, ") == before  # the gate did not begin again
        gone = len(stream.events())
        live_rigs(scene, server, stream.rigs)
        stream.signal(signal.SIGHUP)
        stream.until(lambda e: recognised(e, "yard", gone))
        assert stream.log().count("watching, ") == before + 1
        stream.rigs.write_text("rigs: 5")
        stream.signal(signal.SIGHUP)
        stream.until(lambda e: "stay as they are" in stream.log())
        count = len(stream.events())
        stream.until(lambda e: recognised(e, "yard", count))
        code, _ = stream.stop()
    assert code == 0


def test_it_stops_before_any_camera_is_there(scene, tmp_path, settings):
    server = RtspServer({}, tmp_path, port=9)  # nobody listens on the discard port
    with live(scene, server, tmp_path, [*settings, "live.patience_s=1"]) as stream:
        stream.until(lambda e: sum(x["event"] == "camera_lost" for x in e) == 6)
        code, took_s = stream.stop()
    assert code == 0
    assert took_s < 5.0


def test_clips_and_cameras_do_not_mix(scene, tmp_path, capsys):
    text = (scene / "rigs.yaml").read_text().replace("gate/rgb.mp4", "pattern://?fps=25")
    (scene / "mixed.yaml").write_text(text)
    models = [f"models.person={scene / 'person.onnx'}", "models.vehicle=null"]
    chosen = [word for setting in models for word in ("--set", setting)]
    mixed = ["--rigs", str(scene / "mixed.yaml"), "--output", str(tmp_path), *chosen]
    assert run(main, mixed) == 2
    assert "do not go together" in capsys.readouterr().err
