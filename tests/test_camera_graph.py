"""Travel times between rigs: what they forbid and prefer, and how they are learnt from events."""

import json

import numpy as np
import pytest
import yaml

from calibration.camera_graph import as_yaml, main, passages, suggest
from mambapro.cli import InputError, run
from mambapro.config import from_dict
from runtime.config import CameraConfig, MatchConfig, PassageConfig, RigConfig, StreamConfig
from runtime.identity.camera_graph import CameraGraph, Stay, Veto
from runtime.stream import _check_graph
from tests.made_up_thresholds import thresholds
from tests.runtime_scenes import ColourEngine
from tests.test_runtime_recognition import Desk

GATE_TO_YARD = PassageConfig("gate", "yard", 5.0, 60.0)


@pytest.mark.parametrize(
    ("known", "seen", "veto"),
    [
        (Stay("gate", 0, 10), Stay("yard", 11, 12), Veto("gate", 1, 5.0)),
        (Stay("gate", 0, 10), Stay("yard", 15, 16), None),
        (Stay("gate", 0, 10), Stay("yard", 9, 12), Veto("gate", -1, 5.0)),
        (Stay("yard", 11, 12), Stay("gate", 0, 10), Veto("yard", 1, 5.0)),  # decided later
        (Stay("yard", 0, 10), Stay("gate", 11, 12), None),  # the other direction is free
        (Stay("gate", 0, 10), Stay("dock", 10, 12), None),
    ],
)
def test_who_is_too_early_cannot_be_it(known, seen, veto):
    assert CameraGraph([GATE_TO_YARD]).veto(seen, known) == veto


def test_a_way_that_takes_no_time_lets_two_rigs_share_a_view():
    graph = CameraGraph([PassageConfig("gate", "yard", 0.0)])
    assert graph.veto(Stay("yard", 1, 9), Stay("gate", 0, 10)) is None
    assert graph.share_a_view("gate", "yard")
    assert graph.share_a_view("yard", "gate")
    assert not CameraGraph([GATE_TO_YARD]).share_a_view("gate", "yard")


def test_the_likelihood_is_the_documented_formula():
    graph = CameraGraph([GATE_TO_YARD, PassageConfig("yard", "gate", 5.0)])
    found = [graph.likelihood("gate", 0, "yard", after) for after in (4, 5, 60, 120, 600)]
    assert found == [0, 1, 1, 0.5, 0.1]
    assert graph.likelihood("yard", 0, "gate", 10) == 0  # without max_s nothing is usual
    assert graph.likelihood("dock", 0, "gate", 10) == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([{"leaves": "gate", "enters": "gate"}], "two rigs"),
        ([{"leaves": "gate", "enters": "yard", "min_s": 9, "max_s": 4}], "max_s above it"),
        ([{"leaves": "gate", "enters": "yard", "min_s": -1}], "at least 0"),
        ([{"leaves": "gate", "enters": "yard"}] * 2, "twice"),
        ([{"from": "gate", "enters": "yard"}], r"unknown key graph\[0\].from"),
    ],
)
def test_settings_that_mean_nothing_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        from_dict(MatchConfig, {"graph": values})


@pytest.fixture
def desk(tmp_path):
    opened = []

    def open_desk(*passages, **settings):
        opened.append(Desk(tmp_path / str(len(opened)), graph=passages, **settings))
        return opened[-1]

    yield open_desk
    for one in opened:
        one.gallery.close()
        one.events_log.close()


def sightings(desk):
    return [event for event in desk.events() if event["event"] == "sighting"]


def test_a_veto_that_changes_the_decision_is_in_the_event(desk):
    watched = desk(GATE_TO_YARD)
    assert watched.see("gate", 1, "a", 0).identity == "P1"
    assert watched.see("yard", 1, "a", 3).identity == "P2"  # 2 s after P1 left the gate
    assert watched.see("gate", 2, "a", 40).known
    *_, refused, free = sightings(watched)
    assert refused["veto"] == {"rig": "gate", "gap_s": 2.0, "min_s": 5.0, "score": 1.0}
    assert "P1" not in json.dumps(refused)  # whoever deletes P1 finds all that names them
    assert free["veto"] is None


def test_a_veto_that_changes_nothing_is_not_told(desk):
    watched = desk(GATE_TO_YARD)
    watched.see("gate", 1, "a", 0)
    watched.see("yard", 1, "b", 3)
    assert [event["veto"] for event in sightings(watched)] == [None, None]


def test_without_a_graph_all_is_as_before(desk):
    watched = desk()
    watched.see("gate", 1, "a", 0)
    assert watched.see("yard", 1, "a", 3).identity == "P1"


def test_a_shared_view_is_an_exception_from_disjoint_sites(desk):
    watched = desk(PassageConfig("gate", "yard", 0.0))
    watched.see("gate", 1, "a", 0)
    assert watched.see("yard", 1, "a", 0.2).identity == "P1"


def near_twins(desk, weight, score_apart):
    """Let P1, at the gate lately, and the more similar P2, never there, compete at the yard."""
    watched = desk(PassageConfig("gate", "yard", 5.0, 60.0), graph_weight=weight, min_crops=1)
    spec = watched.engine.spec
    a = watched.engine.embed(np.full((1, 3, 64, 32, 3), 90, np.uint8), np.ones((1, 3), np.float32),
                             np.zeros(1, np.int64))[0]  # fmt: skip
    assert len(a) == spec.embedding_dim
    watched.see("gate", 1, "a", 0)
    (own,) = watched.gallery.templates_of("P1")
    towards = np.zeros_like(own.embedding)
    towards[-1] = 1.0
    for name, angle in (("P1", score_apart), ("P2", 0.0)):
        turned = own.embedding + angle * towards
        payload = {"rig": "gate" if name == "P1" else "dock", "time_s": 1.0, "mask": [1, 0, 0]}
        point = own.point if name == "P1" else None
        watched.gallery.put(name, turned / np.linalg.norm(turned), payload, point)
    return watched.see("yard", 1, "a", 30)


def test_a_likely_way_decides_between_two_who_both_match(desk):
    assert near_twins(desk, 0.0, 0.2).identity == "P2"
    preferred = near_twins(desk, 0.1, 0.2)
    assert preferred.identity == "P1"
    assert preferred.score < 0.999  # the similarity itself is told, without what was added


def test_a_likely_way_makes_nobody_known(tmp_path):
    made = thresholds(ColourEngine().spec, {"rgb": 1.01}, {})
    watched = Desk(tmp_path, made, graph=(PassageConfig("gate", "yard", 5.0, 60.0),),
                   graph_weight=1.0)  # fmt: skip
    watched.see("gate", 1, "a", 0)
    assert watched.see("yard", 1, "a", 30).known is False
    watched.gallery.close()


def made_up_events(wrong, seed=0, people=300):
    """Tracks of people who walk from gate to yard in 12 s or more, some of them mistaken."""
    random = np.random.default_rng(seed)
    times, events = 12 + random.gamma(4.0, 3.0, people), []
    for number, (took, mistaken) in enumerate(zip(times, random.random(people) < wrong,
                                                  strict=True)):  # fmt: skip
        left = 100 + random.uniform(0, 3600)
        enters = random.uniform(left - 600, left + 3600) if mistaken else left + took
        for rig, start in (("gate", left - 8), ("yard", enters)):
            events.append({"identity": f"P{number}", "rig": rig, "start_s": start,
                           "end_s": start + 8.0})  # fmt: skip
    return times, events


@pytest.mark.parametrize("wrong", [0.0, 0.1, 0.2])
def test_a_suggestion_survives_wrong_matches(wrong):
    times, events = made_up_events(wrong)
    found = suggest(("gate", "yard"), passages(events)["gate", "yard"])
    assert np.mean(times < found.min_s) <= 0.005  # no right match is forbidden
    assert found.min_s > 4  # the fastest takes 12 s or more
    assert np.mean(times > found.max_s) <= 0.05
    assert found.max_s < 120


def test_a_shared_view_is_suggested_only_where_one_was_seen():
    apart = suggest(("gate", "yard"), [1.0, 2.0, 9.0, 14.0, 20.0])
    assert apart.min_s == 0.1
    assert suggest(("gate", "yard"), [-3.0, -2.0, -1.0, 0.5, 30.0]).min_s == 0.0


def test_the_command_prints_what_the_settings_read(tmp_path, capsys):
    _, events = made_up_events(0.1, people=60)
    path = tmp_path / "events.jsonl"
    ends = [{"event": "track_end", "crops": 4, **event} for event in events]
    more = [{"event": "sighting"}, {"event": "track_end", "identity": None, "rig": "gate"}]
    path.write_text("".join(json.dumps(event) + "\n" for event in ends + more))
    assert run(main, [str(path), "--json"]) == 0
    *text, last = capsys.readouterr().out.splitlines()
    settings = from_dict(MatchConfig, yaml.safe_load("\n".join(text))["match"])
    (passage,) = (p for p in settings.graph if p.leaves == "gate")
    assert passage.min_s == json.loads(last)["graph"][0]["min_s"]
    assert "passages: 5 % under" in "\n".join(text)


def test_too_few_passages_are_only_counted(tmp_path, capsys):
    assert yaml.safe_load(as_yaml([], {("gate", "yard"): 3})) == {"match": {"graph": []}}
    path = tmp_path / "events.jsonl"
    path.write_text('{"event": "track_end"}\n')
    assert run(main, [str(path)]) == 2
    assert "line 1 is no event" in capsys.readouterr().err
    assert run(main, [str(tmp_path / "absent")]) == 2
    assert run(main, [str(path), "--least", "1"]) == 2


def test_a_rig_that_is_not_there_is_named(caplog):
    rigs = [RigConfig("gate", {"rgb": CameraConfig("")})]
    config = StreamConfig(match=MatchConfig(graph=(GATE_TO_YARD,)))
    _check_graph(rigs, config)
    assert "names the rig yard; there are gate" in caplog.text
