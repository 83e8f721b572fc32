"""docs/events.schema.json describes what is really written, and docs/events.md the same fields."""

import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from mambapro.cli import run
from runtime.config import SinksConfig
from runtime.identity.events import camera_back_event, camera_lost_event, drift_event
from runtime.sinks import open_events
from runtime.stream import main
from tests.runtime_scenes import Walk, write_colour_model, write_scene

DOCS = Path(__file__).parents[1] / "docs"
SCHEMA = json.loads((DOCS / "events.schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA, format_checker=FormatChecker())
KINDS = [part["$ref"].rpartition("/")[2] for part in SCHEMA["oneOf"]]


def lines(folder):
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def check(event):
    VALIDATOR.validate(event)
    assert set(event) == set(SCHEMA["$defs"][event["event"]]["properties"])


def test_the_schema_is_one():
    Draft202012Validator.check_schema(SCHEMA)
    for kind in KINDS:
        part = SCHEMA["$defs"][kind]
        assert set(part["required"]) == set(part["properties"])


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    walks = {"gate": [Walk("a", 0.6, speed=150)], "yard": [Walk("a", 3.0, speed=150)]}
    write_scene(folder, walks, 5.4)
    write_colour_model(folder / "person.onnx")
    return folder


@pytest.mark.parametrize("snapshots", ["true", "false"])
def test_a_stream_writes_what_the_schema_says(scene, tmp_path, snapshots):
    arguments = [
        "--rigs", str(scene / "rigs.yaml"), "--output", str(tmp_path / "out"), "--no-video",
        "--set", f"models.person={scene / 'person.onnx'}", "--set", "models.vehicle=null",
        "--set", "match.decide_after=2", "--set", f"sinks.snapshots.enabled={snapshots}",
    ]  # fmt: skip
    assert run(main, arguments) == 0
    events = lines(tmp_path / "out")
    for event in events:
        check(event)
    assert {event["event"] for event in events} == {"glimpse", "sighting", "track_end"}
    sightings = [event for event in events if event["event"] == "sighting"]
    assert {event["known"] for event in sightings} == {True, False}
    for event in sightings:
        assert (event["snapshots"] is None) == (snapshots == "false")
        for path in (event["snapshots"] or {}).values():
            assert (tmp_path / "out" / "snapshots" / path).is_file()


def test_live_events_of_cameras(tmp_path):
    log = open_events(SinksConfig(), tmp_path, live=True)
    log.write(camera_lost_event("gate", "tir", "nothing received for 5 s", 1795582931.5))
    log.write(camera_back_event("gate", "tir", 17.6, 1795582949.1))
    log.write(drift_event("gate", "person", "tir", True, "share", 0.71234, 48, 1795582950.0))
    log.close()
    events = lines(tmp_path)
    assert [event["event"] for event in events] == ["camera_lost", "camera_back", "drift"]
    for event in events:
        check(event)


@pytest.mark.parametrize(
    "change",
    [{"id": "12"}, {"schema": 2}, {"rig": None}, {"event": "noise"}, {"modality": "uv"},
     {"away_s": -1.0}, {"time": "yesterday"}, {"time_s": "now"}],
)  # fmt: skip
def test_what_is_wrong_is_not_valid(change):
    event = examples()["camera_back"]
    assert VALIDATOR.is_valid(event)
    assert not VALIDATOR.is_valid({**event, **change})


def sections():
    parts = re.split(r"^## (\w+)$", (DOCS / "events.md").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def examples():
    found = {kind: re.search(r"```json\n(.*?)\n```", sections()[kind], re.DOTALL) for kind in KINDS}
    return {kind: json.loads(match[1]) for kind, match in found.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_has_a_valid_example_and_all_fields(kind):
    check(examples()[kind])
    text = (DOCS / "events.md").read_text()
    common = text[text.index("## In every event") : text.index("## glimpse")]
    named = re.findall(r"^\| `(\w+)`", common + sections()[kind].split("\n## ")[0], re.MULTILINE)
    assert set(named) == set(SCHEMA["$defs"][kind]["properties"])
