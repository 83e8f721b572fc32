"""A recording gives the same events again, to the last bit."""

import json
import shutil

import numpy as np
import pytest

from mambapro.cli import InputError, run
from runtime.config import LiveConfig, StreamConfig
from runtime.feeds.interface import CameraChange, Due, Instant, RigBegins, RigEnds
from runtime.feeds.replay import ReplayFeed
from runtime.feeds.tape import INSTANTS, TapedFeed
from runtime.sinks import CLIPS
from runtime.stream import main
from tests.runtime_scenes import Walk, write_colour_model, write_scene


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    walks = {"gate": [Walk("a", 0.6, speed=150)], "yard": [Walk("b", 0.9, speed=150)]}
    write_scene(folder, walks, 4.0, offsets_s={"nir": 0.05})
    write_colour_model(folder / "person.onnx")
    return folder


def stream(scene, output, *more):
    models = [f"models.person={scene / 'person.onnx'}", "models.vehicle=null"]
    settings = [x for s in (*models, "match.decide_after=2") for x in ("--set", s)]
    return run(main, ["--output", str(output), "--no-video", *settings, *more])


@pytest.fixture(scope="module")
def recorded(scene, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    rigs, tape = ["--rigs", str(scene / "rigs.yaml")], ["--record", str(folder / "tape")]
    assert stream(scene, folder / "out", *rigs, *tape) == 0
    return folder


def test_a_replay_gives_the_same_bytes(recorded):
    events = (recorded / "out" / "events.jsonl").read_bytes()
    assert sum(json.loads(line)["event"] == "sighting" for line in events.splitlines()) == 2
    assert run(main, ["--replay", str(recorded / "tape")]) == 0
    assert (recorded / "tape" / "replay" / "events.jsonl").read_bytes() == events


def test_a_recording_that_was_cut_off_plays_to_its_last_whole_instant(scene, recorded, tmp_path):
    tape = tmp_path / "tape"
    shutil.copytree(recorded / "tape", tape)
    lines = (tape / INSTANTS).read_bytes()
    (tape / INSTANTS).write_bytes(lines[: len(lines) // 2])
    instants = list(ReplayFeed(tape))
    assert 20 < len(instants) < lines.count(b"\n")
    assert [type(n) for n in instants[-1].notices] == [RigEnds, RigEnds]


def test_what_is_no_recording_is_refused(scene, recorded, tmp_path, capsys):
    assert stream(scene, tmp_path / "out", "--replay", str(tmp_path)) == 2
    assert f"{tmp_path} is no recording" in capsys.readouterr().err
    tape = tmp_path / "tape"
    shutil.copytree(recorded / "tape", tape)
    lines = (tape / INSTANTS).read_text().splitlines()
    (tape / INSTANTS).write_text("\n".join([*lines[:5], "{}", *lines[5:]]))
    with pytest.raises(InputError, match="damaged: line 6"):
        list(ReplayFeed(tape))
    again = ["--rigs", str(scene / "rigs.yaml"), "--record", str(recorded / "tape")]
    assert stream(scene, tmp_path / "out", *again) == 2
    assert "is not empty" in capsys.readouterr().err


class Given:
    """A feed of given instants."""

    def __init__(self, instants):
        self._instants = instants

    def __iter__(self):
        return iter(self._instants)

    def statistics(self):
        return {}

    def close(self):
        pass


def test_pictures_notices_and_loads_come_back_as_they_were(recorded, tmp_path):
    """Pictures of noise, of odd and changing size: what a codec would spoil first."""
    first = next(iter(ReplayFeed(recorded / "tape")))
    begins = first.notices[0]
    assert isinstance(begins, RigBegins)
    rng = np.random.default_rng(0)
    triplets = [due.triplet for instant in ReplayFeed(recorded / "tape") for due in instant.due]
    sizes = [(36, 64), (36, 64), (37, 51), (36, 64)]
    instants = [Instant(1.5, [begins])]
    for i, size in enumerate(sizes):
        frames = {
            m: type(f)(rng.integers(0, 256, (*size, 3), np.uint8), 1 / 3 + i, "rtcp", i, 0.1 * i, 2)
            for m, f in triplets[0].frames.items()
        }
        triplet = type(triplets[0])(0.1 + i, frames, 1e-9)
        lost = CameraChange(begins.rig.name, "tir", "lost", "it went", 2.0 + i)
        instants.append(Instant(2.0 + i, [lost], [Due(begins.rig.name, triplet)], i % 4))
    instants.append(Instant(9.0, [RigEnds(begins.rig.name)]))
    feed = TapedFeed(Given(instants), tmp_path / "tape", StreamConfig(), CLIPS)
    assert list(feed) == instants
    feed.close()
    for played, given in zip(ReplayFeed(tmp_path / "tape"), instants, strict=True):
        assert (played.now_s, played.load) == (given.now_s, given.load)
        assert [d.triplet.time_s for d in played.due] == [d.triplet.time_s for d in given.due]
        for ours, theirs in zip(played.due, given.due, strict=True):
            for modality, frame in theirs.triplet.frames.items():
                same = ours.triplet.frames[modality]
                assert (same.picture == frame.picture).all()
                assert (same.time_s, same.index, same.connection) == (
                    frame.time_s, frame.index, frame.connection,
                )  # fmt: skip
        if not any(isinstance(n, RigBegins) for n in given.notices):
            assert played.notices == given.notices


def test_a_recording_ends_in_time_and_the_feed_goes_on(recorded, tmp_path):
    instants = [Instant(float(i)) for i in range(20)]
    feed = TapedFeed(
        Given(instants), tmp_path / "tape", StreamConfig(live=LiveConfig(tape_s=5.0)), CLIPS
    )
    assert len(list(feed)) == 20
    feed.close()
    assert len(list(ReplayFeed(tmp_path / "tape"))) == 6
