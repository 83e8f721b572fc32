"""Samples become identities: batches over rigs, open-set decisions, whole lines of events."""

import json
import os

import numpy as np
import pytest

from runtime.config import CameraConfig, GalleryConfig, MatchConfig, RigConfig
from runtime.gallery import open_gallery
from runtime.identity.identification import Identifier, fuse
from runtime.identity.recognition import Recogniser
from runtime.identity.requirement import Requirement
from runtime.sinks import CLIPS, EventLog, JsonLinesSink
from runtime.watching.crops import Sample
from runtime.watching.tracking import Track
from tests.made_up_thresholds import thresholds
from tests.runtime_scenes import COLOURS, ColourEngine


def make_track(number, start_s=0.0, end_s=1.0, subject="person"):
    track = Track(number, start_s, end_s, (0, 0, 30, 60), (0, 0, 30, 60), confirmed=True)
    track.votes[subject] += 1
    return track


def sample(rig, track, identity, time_s=0.5, modalities=("rgb",)):
    crop = np.zeros((64, 32, 3), np.uint8)
    crop[:] = COLOURS[identity]
    return Sample(rig, track.number, time_s, dict.fromkeys(modalities, crop), 1.0)


class Desk:
    """A recogniser with a gallery of colours."""

    def __init__(self, folder, thresholds=None, **settings):
        self.engine = ColourEngine()
        config = MatchConfig(**{"decide_after": 2, **settings})
        self.gallery = open_gallery(folder / "g", self.engine.spec, GalleryConfig())
        self.path = folder / "events.jsonl"
        self.events_log = EventLog(CLIPS, JsonLinesSink(self.path))
        required = Requirement(config, self.engine.spec, thresholds)
        identifiers = {"person": Identifier(config, self.gallery, required)}
        self.recogniser = Recogniser(
            config, {"person": self.engine}, identifiers, self.events_log, 8, 0.2
        )
        for name, camera in (("gate", 0), ("yard", 9)):
            self.recogniser.meet(RigConfig(name, {"rgb": CameraConfig("")}, camera))

    def see(self, rig, number, identity, start_s, count=2, modalities=("rgb",), **kinds):
        """Let a track pass; return its decision."""
        track = make_track(number, start_s, start_s + 1, **kinds)
        for _ in range(count):
            self.recogniser.add(track, sample(rig, track, identity, start_s, modalities))
        self.recogniser.advance(start_s + 1)
        self.recogniser.end(rig, track)
        return self.recogniser.decision(rig, track)

    def events(self):
        return [json.loads(line) for line in self.path.read_text().splitlines()]


@pytest.fixture
def desk(tmp_path):
    opened = Desk(tmp_path)
    yield opened
    opened.gallery.close()
    opened.events_log.close()


def test_the_second_sighting_is_known_and_a_stranger_is_new(desk):
    first = desk.see("gate", 1, "a", 0)
    stranger = desk.see("gate", 2, "b", 10)
    second = desk.see("yard", 1, "a", 20)
    assert (first.identity, first.known, first.score) == ("P1", False, None)
    assert (stranger.identity, stranger.known) == ("P2", False)
    assert stranger.score < stranger.threshold
    assert (second.identity, second.known) == ("P1", True)
    assert second.match.template.payload["rig"] == "gate"
    kinds = [(e["event"], e["identity"]) for e in desk.events()]
    assert kinds == [
        ("sighting", "P1"), ("track_end", "P1"), ("sighting", "P2"),
        ("track_end", "P2"), ("sighting", "P1"), ("track_end", "P1"),
    ]  # fmt: skip


def test_two_in_view_at_once_are_two(desk):
    assert desk.see("gate", 1, "a", 0).identity == "P1"
    assert desk.see("gate", 2, "a", 0.5).identity == "P2"
    assert desk.see("yard", 1, "a", 0.2).identity == "P3"  # cannot be at two places either


def test_rigs_that_share_a_view_may_share_an_identity(tmp_path):
    desk = Desk(tmp_path, disjoint_sites=False)
    assert desk.see("gate", 1, "a", 0).identity == "P1"
    assert desk.see("yard", 1, "a", 0.2).identity == "P1"
    desk.gallery.close()


def test_one_batch_serves_all_rigs(desk):
    tracks = [make_track(1), make_track(2)]
    for rig, track in zip(("gate", "yard"), tracks, strict=True):
        desk.recogniser.add(track, sample(rig, track, "a"))
        desk.recogniser.add(track, sample(rig, track, "a"))
    assert desk.recogniser.advance(0.55) == []
    assert len(desk.recogniser.advance(0.8)) == 2
    assert desk.engine.batches == [4]


def test_a_short_track_decides_at_its_end(desk):
    assert desk.see("gate", 1, "a", 0, count=1).identity == "P1"
    assert desk.engine.batches == [1]


def follow(desk, number, identities, start_s):
    """Let one track show several subjects, half a second each; return its events."""
    track = make_track(number, start_s, start_s + len(identities) / 2)
    for i, identity in enumerate(identities):
        time_s = start_s + i / 2
        desk.recogniser.add(track, sample("gate", track, identity, time_s))
        desk.recogniser.advance(time_s + 0.3)
    desk.recogniser.end("gate", track)
    return [e for e in desk.events() if e["track"] == number and e["start_s"] >= start_s]


def test_a_track_that_changes_its_subject_becomes_two_sightings(desk):
    desk.see("gate", 1, "b", 0)
    events = follow(desk, 2, "aaabb", 10)
    assert [(e["event"], e["identity"], e["start_s"], e["end_s"]) for e in events] == [
        ("sighting", "P2", 10.0, None), ("track_end", "P2", 10.0, 11.0),
        ("sighting", "P1", 11.5, None), ("track_end", "P1", 11.5, 12.5),
    ]  # fmt: skip
    # What the first left behind is its own: no crop of the second is in its template.
    assert desk.see("gate", 3, "a", 20).score == pytest.approx(1, abs=1e-5)


def test_one_stray_crop_is_left_out(desk):
    events = follow(desk, 1, "aabaa", 0)
    assert [(e["event"], e["identity"], e["crops"]) for e in events][-1] == ("track_end", "P1", 4)
    assert desk.see("gate", 2, "a", 10).score == pytest.approx(1, abs=1e-5)


def test_strays_that_disagree_change_nothing(desk):
    assert [e["identity"] for e in follow(desk, 1, "aabca", 0)] == ["P1", "P1"]


def test_strays_of_another_model_are_forgotten(tmp_path):
    """A track turns out to be a vehicle while a crop is set aside: that is of no use any more."""
    engines = {subject: ColourEngine(subject, subject) for subject in ("person", "vehicle")}
    config = MatchConfig(decide_after=3)
    galleries = {
        subject: open_gallery(tmp_path / subject, engine.spec, GalleryConfig())
        for subject, engine in engines.items()
    }
    identifiers = {
        s: Identifier(config, g, Requirement(config, engines[s].spec)) for s, g in galleries.items()
    }
    sink = EventLog(CLIPS, JsonLinesSink(tmp_path / "events.jsonl"))
    recogniser = Recogniser(config, engines, identifiers, sink, 8, 0.2)
    recogniser.meet(RigConfig("gate", {"rgb": CameraConfig("")}, 0))
    track = make_track(1)
    for identity in "aaab":
        recogniser.add(track, sample("gate", track, identity))
    track.votes["vehicle"] += 5
    (sighting,) = recogniser.advance(1.0)
    assert (sighting.subject, sighting.decision.identity) == ("vehicle", "V1")
    assert len(sighting.embeddings) == 3
    assert sighting.strays == []
    for gallery in galleries.values():
        gallery.close()
    sink.close()


def test_a_glimpse_says_who_it_seems_to_be_and_keeps_nothing(desk):
    desk.see("gate", 1, "a", 0)
    before = len(desk.events())
    for number, identity in enumerate("ab", 5):
        track = make_track(number, 20)
        desk.recogniser.glimpse(track, sample("yard", track, identity, 20.3))
    desk.recogniser.advance(20.3)
    known, stranger = desk.events()[before:]
    assert [e["event"] for e in (known, stranger)] == ["glimpse"] * 2
    assert (known["identity"], known["rig"], known["time_s"]) == ("P1", "yard", 20.3)
    assert known["score"] >= known["threshold"] > stranger["score"]
    assert stranger["identity"] is None
    assert len(desk.gallery) == 1
    assert desk.see("yard", 6, "b", 21).known is False


def test_a_first_crop_that_shows_somebody_else_is_forgotten(desk):
    events = follow(desk, 1, "baaa", 0)
    assert [(e["event"], e["crops"]) for e in events] == [("sighting", 2), ("track_end", 3)]
    assert desk.see("gate", 2, "b", 10).known is False


def test_a_track_without_a_sample_has_no_identity(desk):
    assert desk.see("gate", 1, "a", 0, count=0) is None
    assert [(e["event"], e["identity"]) for e in desk.events()] == [("track_end", None)]


def test_a_subject_without_a_model_stays_unidentified(desk):
    assert desk.see("gate", 1, "a", 0, subject="vehicle") is None


def test_the_mean_of_unit_vectors_is_a_unit_vector():
    vectors = [np.eye(4, dtype=np.float32)[i] for i in range(3)]
    assert np.allclose(fuse(vectors), [3**-0.5] * 3 + [0])
    assert fuse(vectors).dtype == np.float32


@pytest.mark.parametrize(
    ("settings", "calibrated", "expected"),
    [({"person_threshold": 0.5}, True, 0.5), ({}, True, 0.9), ({}, False, 0.7)],
)
def test_the_config_decides_before_the_model(settings, calibrated, expected, caplog):
    spec = ColourEngine().spec
    spec = spec if calibrated else spec.replace(match_threshold=None)
    required = Requirement(MatchConfig(**settings), spec)
    assert required.single == required.between(["rgb"], ["tir"]) == expected
    assert ("no calibrated threshold" in caplog.text) is (not calibrated)


def test_every_line_is_whole_and_readable_at_once(tmp_path):
    sink = JsonLinesSink(tmp_path / "e.jsonl")
    for number in range(50):
        sink.write({"event": "sighting", "id": number, "text": 'é\n"' * number})
        lines = (tmp_path / "e.jsonl").read_bytes().split(b"\n")
        assert lines[-1] == b""
        assert json.loads(lines[-2])["id"] == number
    sink.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_full_disk_is_an_error_that_names_the_file():
    from pathlib import Path

    sink = JsonLinesSink(Path("/dev/full"))
    with pytest.raises(OSError, match=r"No space left on device.*/dev/full"):
        sink.write({"event": "sighting"})


def test_half_a_line_is_taken_back(tmp_path):
    sink = JsonLinesSink(tmp_path / "e.jsonl")
    sink.write({"id": 1})
    whole = sink._file

    class Short:
        def __getattr__(self, name):
            return getattr(whole, name)

        def write(self, line):
            return whole.write(line[: len(line) // 2])

    sink._file = Short()
    with pytest.raises(OSError, match="No space left"):
        sink.write({"id": 2})
    assert (tmp_path / "e.jsonl").read_text() == '{"id": 1}\n'


@pytest.mark.parametrize("live", [True, False])
def test_a_gallery_that_cannot_be_written_ends_a_run_on_clips_only(tmp_path, caplog, live):
    desk = Desk(tmp_path)
    desk.recogniser._remember_s = 60.0 if live else None

    def full(*_):
        raise OSError(28, "No space left on device")

    desk.gallery.put = full
    if live:
        assert desk.see("gate", 1, "a", 0).known is False
        assert "is not kept" in caplog.text
        assert [e["event"] for e in desk.events()] == ["sighting", "track_end"]
    else:
        with pytest.raises(OSError, match="No space"):
            desk.see("gate", 1, "a", 0)
    desk.gallery.close()
    desk.events_log.close()


def test_the_threshold_is_that_of_what_track_and_template_show(tmp_path):
    made = thresholds(ColourEngine().spec, {"rgb": 0.3}, {"rgb": 0.5})
    desk = Desk(tmp_path, made)
    assert desk.see("gate", 1, "a", 0, modalities=("rgb",)).threshold == 0.3
    again = desk.see("gate", 2, "a", 10, modalities=("rgb",))
    assert (again.known, again.threshold) == (True, 0.3)
    complete = desk.see("gate", 3, "a", 20, modalities=("rgb", "nir", "tir"))
    assert (complete.known, complete.threshold) == (True, 0.5)  # by a template of rgb alone
    complete = desk.see("gate", 4, "a", 30, modalities=("rgb", "nir", "tir"))
    # By the complete one and both of rgb alone: what is needed is a mean, as the score is.
    assert complete.known
    assert complete.threshold == pytest.approx((0.9 + 0.5 + 0.5) / 3)
    desk.gallery.close()
