"""Events and snapshots as the server reads them from disk."""

import json
import random
import re
import time
from pathlib import Path

import numpy as np
import pytest

from runtime.config import SinksConfig, SnapshotsConfig
from runtime.server.door import VARIABLE
from runtime.server.events import Kind
from runtime.sinks.ids import event_id
from runtime.sinks.jsonlines import JsonLinesSink, Rotation
from runtime.sinks.past import Wanted, read_back
from tests.scene_cameras import until
from tests.served import Served

BEGUN_S = 1_795_580_000
RUN = "20261125T042640Z-3f9a2c"


def event(number, **values):
    kind = ("glimpse", "sighting", "track_end")[number % 3]
    rig = ("gate", "yard")[number % 2]
    who = None if kind == "glimpse" else f"P{number % 5}"
    return {
        "event": kind, "id": event_id(RUN, number), "schema": 1, "rig": rig, "identity": who,
        "time_s": float(BEGUN_S + number), "box": [0.0] * 40, **values,
    }  # fmt: skip


@pytest.fixture
def log(tmp_path):
    """Return the path of 2,000 events over some ten files."""
    sink = JsonLinesSink(
        tmp_path / "events.jsonl", append=True, rotation=Rotation(60_000, float("inf"), 100)
    )
    for number in range(2000):
        sink.write(event(number))
    sink.close()
    assert len(list(tmp_path.iterdir())) > 8
    return tmp_path / "events.jsonl"


def numbers(found):
    return [int(e["id"][-8:]) for e in found.events]


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(),
        Wanted(rig="yard"),
        Wanted(kind="sighting", rig="gate"),
        Wanted(identities=frozenset(("P1", "P3"))),
        Wanted(since_s=BEGUN_S + 900.5),
        Wanted(since_s=BEGUN_S + 100, until_s=BEGUN_S + 200, rig="yard"),
        Wanted(until_s=BEGUN_S + 3),
        Wanted(before=event_id(RUN, 777)),
        Wanted(before=event_id(RUN, 0)),
        Wanted(before=event_id("20270101T000000Z-000000", 5)),
        Wanted(rig="nowhere"),
    ],
)
def test_it_gives_what_a_look_at_all_events_gives(log, wanted):
    most = 5000
    expected = [
        n for n in reversed(range(2000))
        if wanted.takes(event(n)) and (wanted.before is None or event_id(RUN, n) < wanted.before)
    ]  # fmt: skip
    found = read_back(log, wanted, most)
    assert numbers(found) == expected
    assert found.before is None


@pytest.mark.parametrize(
    ("most", "most_bytes"), [(37, 1 << 30), (50, 5000), (667, 20_000), (1999, 1 << 30)]
)
def test_pages_follow_each_other(log, most, most_bytes):
    seen, before, begun = [], None, False
    while before is not None or not begun:
        found = read_back(log, Wanted(kind="sighting", before=before), most, most_bytes)
        assert len(found.events) <= most
        seen += numbers(found)
        before, begun = found.before, True
    assert seen == [n for n in reversed(range(2000)) if n % 3 == 1]


def test_no_call_looks_through_everything(log, monkeypatch):
    parsed = []
    loads = json.loads
    monkeypatch.setattr(
        "runtime.sinks.past.json.loads", lambda line: parsed.append(1) or loads(line)
    )
    found = read_back(log, Wanted(before=event_id(RUN, 1000)), 10)
    assert numbers(found) == list(range(999, 989, -1))
    assert len(parsed) < 250
    parsed.clear()
    read_back(log, Wanted(since_s=BEGUN_S + 1990), 1000)
    assert len(parsed) < 700  # SLACK_S


def test_lines_that_are_torn_or_damaged_are_left_out(log):
    with log.open("ab") as file:
        file.write(b"garbage\n\n[1]\n{}\n" + b"x" * 200_000 + b"\n")
        file.write(json.dumps(event(2000)).encode() + b"\n" + b'{"event": "sight')
    assert numbers(read_back(log, Wanted(), 2)) == [2000, 1999]
    assert numbers(read_back(log, Wanted(before=event_id(RUN, 2000)), 1)) == [1999]
    assert numbers(read_back(log, Wanted(before=event_id(RUN, 3000)), 1)) == [2000]


def test_nothing_is_there_yet(tmp_path):
    assert read_back(tmp_path / "events.jsonl", Wanted(before=event_id(RUN, 1)), 5).events == []
    (tmp_path / "events.jsonl").touch()
    assert read_back(tmp_path / "events.jsonl", Wanted(), 5).events == []


def test_events_dated_by_a_clock_that_was_wrong_hide_no_others(tmp_path):
    lines = [event(1), event(2, time_s=86_400.0), event(3)]
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(e) + "\n" for e in lines))
    assert numbers(read_back(path, Wanted(since_s=float(BEGUN_S)), 5)) == [3, 1]


def test_clips_came_before_the_cameras(tmp_path):
    lines = [event(n, id=f"clips-{n:08d}", time_s=float(n)) for n in range(3)]
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(e) + "\n" for e in [*lines, event(3), event(4)]))
    assert numbers(read_back(path, Wanted(before=event_id(RUN, 4)), 5)) == [3, 2, 1, 0]


def test_a_rotation_while_it_is_read_neither_loses_nor_repeats(log, monkeypatch):
    opened, draw = [], random.Random(0)
    whole = Path.open

    def rotating(path, *how):
        if draw.random() < 0.3:
            files = sorted(log.parent.glob("events.jsonl.*"), key=lambda p: int(p.suffix[1:]))
            for file in reversed(files):
                file.rename(log.with_name(f"events.jsonl.{int(file.suffix[1:]) + 1}"))
            log.rename(log.with_name("events.jsonl.1"))
            log.touch()
            opened.append(path)
        return whole(path, *how)

    monkeypatch.setattr(Path, "open", rotating)
    seen = numbers(read_back(log, Wanted(), 3000))
    assert opened
    assert len(set(seen)) == len(seen)
    assert seen[:100] == list(range(1999, 1899, -1))


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    sinks = SinksConfig(snapshots=SnapshotsConfig(enabled=True))
    run = Served(tmp_path / "out", monkeypatch, sinks=sinks)
    yield run
    run.close()


def tell(served, who, count=1):
    """Let the run tell of ``count`` sightings of ``who``, with pictures; return the last one."""
    crops = {m: np.full((40, 20, 3), 90, np.uint8) for m in ("rgb", "nir", "tir")}
    for _ in range(count):
        seen = {"event": "sighting", "rig": "desk", "identity": who, "time_s": time.time()}
        told = served.run.view.events.write(seen, crops)
    until(lambda: any(e["id"] == told for e in served.events()))
    return served.events()[-1]


def test_events_and_pictures_of_a_live_run(served):
    sighting = tell(served, "P1", 5)
    assert served.answer("/api/events?kind=sighting&rig=desk&limit=1") == [sighting]
    for modality, name in sighting["snapshots"].items():
        answer = served.send("GET", f"/api/snapshots/{name}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg"), modality
        assert answer.content == (served.output / "snapshots" / name).read_bytes()
    seen, path = [], "/api/events?limit=2&rig=desk"
    while path:
        answer = served.send("GET", path)
        seen += answer.json()
        link = re.fullmatch(r'<(.*)>; rel="next"', answer.headers.get("link", ""))
        path = link and link[1]
    assert seen == [e for e in served.events() if e["rig"] == "desk"][::-1]


def test_events_of_somebody_are_found_by_all_their_names(served):
    one, other = served.know((255, 0, 0)), served.know((0, 255, 0))
    sighting = tell(served, one)
    path = f"/api/identities/person/{one}/merge"
    assert served.send("POST", path, json={"into": other}).status_code == 200
    assert sighting in served.answer(f"/api/events?identity={other}&limit=1000")


def test_what_is_told_of_somebody_goes_with_them(served):
    who = served.know((255, 0, 0))
    sighting = tell(served, who)
    picture = f"/api/snapshots/{sighting['snapshots']['tir']}"
    assert served.ask("/api/events?rig=desk")[1] != "[]"
    assert served.send("GET", picture).status_code == 200
    assert served.send("DELETE", f"/api/identities/person/{who}").status_code == 200
    until(lambda: served.ask("/api/events?rig=desk")[1] == "[]")
    until(lambda: served.send("GET", picture).status_code == 404)


@pytest.mark.parametrize(
    "query",
    ["since=nan", "since=x", "until=inf", "limit=0", "limit=1001", "kind=other", "before=x",
     "before=clips-00000001", "rig=" + "x" * 201],
)  # fmt: skip
def test_questions_that_make_no_sense(served, query):
    status, body = served.ask(f"/api/events?{query}")
    assert status == 422
    assert isinstance(json.loads(body)["detail"], str)


@pytest.mark.parametrize(
    "name",
    ["..%2Fconfig.yaml", "../config.yaml", "%2e%2e%2fevents.jsonl", "P1/../../secret.jpg",
     "P1/..%2F..%2Fsecret.jpg", "..%2Fsecret.jpg", "/etc/passwd", "%2Fetc%2Fpasswd", "P1%00.jpg/x",
     "P1/a.png", "P1", "P1/", "link/secret.jpg", "P1/folder.jpg", "x" * 300,
     "P1/" + "x" * 300 + ".jpg"],
)  # fmt: skip
def test_snapshots_come_from_their_folder_alone(served, name):
    out = served.output
    (out / "secret.jpg").write_bytes(b"secret")
    (out / "snapshots" / "P1" / "folder.jpg").mkdir(parents=True, exist_ok=True)
    (out / "snapshots" / "link").symlink_to(out)
    status, body = served.ask(f"/api/snapshots/{name}")
    assert status == 404
    assert "secret\n" not in body
    assert body != "secret"


def test_kinds_are_those_of_the_description():
    schema = json.loads((Path(__file__).parents[1] / "docs" / "events.schema.json").read_text())
    assert set(Kind.__args__) == set(schema["$defs"]) & set(Kind.__args__)
    kinds = {item["$ref"].rpartition("/")[2] for item in schema["oneOf"]}
    assert set(Kind.__args__) == kinds
