"""The command that looks after a gallery, on a folder and on a server."""

import json

import numpy as np
import pytest

from mambapro import cli
from mambapro.config import to_yaml
from mambapro.spec import ModelSpec
from runtime import manage_gallery
from runtime.config import GalleryConfig, SinksConfig, SnapshotsConfig, StreamConfig
from runtime.gallery import open_gallery
from runtime.sinks import open_events
from tests.qdrant_http import FakeQdrant

SPEC = ModelSpec("person", (64, 32), 24, 4, "space-one", "0" * 64)


def unit(seed):
    vector = np.random.default_rng(seed).normal(size=24).astype(np.float32)
    return vector / np.linalg.norm(vector)


def fill(folder, **settings):
    gallery = open_gallery(folder, SPEC, GalleryConfig(keep=True, **settings))
    for number in (1, 2, 3):
        for again in range(2):
            payload = {"rig": "gate", "time_s": 1.7e9 + 60 * number + again}
            gallery.put(f"P{number}", unit(10 * number + again), payload)
    gallery.close()


@pytest.fixture
def folder(tmp_path):
    fill(tmp_path / "g")
    return tmp_path / "g"


@pytest.fixture
def manage(capsys):
    def call(*words, code=0):
        assert cli.run(manage_gallery.main, ["--json", *map(str, words)]) == code
        out, err = capsys.readouterr()
        return json.loads(out.splitlines()[-1]) if code == 0 else err

    return call


def test_a_morning_of_an_operator(folder, manage, tmp_path):
    assert [i["identity"] for i in manage(folder, "list")["identities"]] == ["P3", "P2", "P1"]
    assert manage(folder, "rename", "P1", "Ada")["name"] == "Ada"
    assert manage(folder, "merge", "P2", "P1")["aliases"] == ["P2"]
    points = [r["point"] for r in manage(folder, "show", "P1")["records"]]
    assert manage(folder, "split", "P1", points[-1])["identity"] == "P4"
    assert manage(folder, "rename", "P1")["name"] is None
    assert manage(folder, "export", tmp_path / "a.npz")["templates"] == 6
    assert manage(folder, "delete", "P3")["templates"] == 2
    assert manage(folder, "verify")["identities"] == 2
    assert manage(tmp_path / "new", "import", tmp_path / "a.npz") == {
        "templates": 6, "identities": 3,
    }  # fmt: skip
    assert manage(tmp_path / "new", "show", "P1")["aliases"] == ["P2"]


def test_the_same_on_a_server(folder, manage, tmp_path):
    with FakeQdrant() as server:
        assert "holds no gallery" in manage(server.url, "list", code=2)
        manage(folder, "export", tmp_path / "a.npz")
        assert manage(server.url, "import", tmp_path / "a.npz")["templates"] == 6
        assert manage(server.url, "rename", "P2", "Bo")["name"] == "Bo"
        assert manage(server.url, "delete", "P1")["templates"] == 2
        assert manage(server.url, "verify")["templates"] == 4
        assert "folders" in manage(server.url, "salvage", code=2)


@pytest.fixture
def output(tmp_path):
    """The output folder of a live run, with a gallery, an event and a snapshot of each of three."""
    out = tmp_path / "out"
    fill(out / "gallery" / "person")
    settings = StreamConfig(sinks=SinksConfig(snapshots=SnapshotsConfig(enabled=True)))
    (out / "config.yaml").write_text(to_yaml(settings))
    log = open_events(settings.sinks, out, live=True)
    for number in (1, 2, 3):
        event = {"event": "sighting", "identity": f"P{number}", "time_s": 1.7e9}
        log.write(event, {"rgb": np.zeros((8, 8, 3), np.uint8)})
    log.close()
    return out


def left(output):
    """Return whom events and snapshots are of."""
    lines = (output / "events.jsonl").read_text().splitlines()
    events = {json.loads(line)["identity"] for line in lines}
    return events, {path.parent.name for path in output.glob("snapshots/**/*.jpg")}


@pytest.mark.parametrize("told", [True, False])
def test_events_and_snapshots_go_with_the_identity_by_all_its_names(output, manage, told):
    folder = output / "gallery" / "person"
    assert left(output) == ({"P1", "P2", "P3"},) * 2
    manage(folder, "merge", "P2", "P1")
    more = ["--output", output] if told else []
    assert manage(folder, "delete", "P1", *more)["output"] == str(output)
    assert left(output) == ({"P3"},) * 2
    assert b"P2" not in b"".join(p.read_bytes() for p in output.glob("journal/*.jsonl"))


def test_what_is_no_output_folder_deletes_nothing(folder, manage, tmp_path):
    said = manage(folder, "delete", "P1", "--output", tmp_path / "none", code=2)
    assert "no output folder" in said
    assert manage(folder, "show", "P1")["templates"] == 2
    assert manage(folder, "delete", "P1")["output"] is None


def test_damage_is_found_and_salvaged(folder, manage):
    assert manage(folder, "salvage") == {"damaged": False, "set_aside": None}
    ledger = folder / "gallery.sqlite"
    ledger.write_bytes(ledger.read_bytes().replace(unit(20).tobytes(), unit(7).tobytes()))
    (folder / "spare.sqlite").unlink()
    assert "is damaged" in manage(folder, "verify", code=1)
    assert "gallery.on_damage=salvage" in manage(folder, "list", code=2)
    assert manage(folder, "salvage")["damaged"]
    assert manage(folder, "verify")["templates"] == 5


def test_embeddings_that_were_written_wrong_are_found(folder, manage):
    gallery = open_gallery(folder, SPEC, GalleryConfig(keep=True))
    gallery.put("P5", 2 * unit(5), {"time_s": 0.0})
    gallery.close()
    assert "not of unit length" in manage(folder, "verify", code=1)


def test_what_is_no_gallery(folder, manage, tmp_path):
    assert "gallery.sqlite" in manage(tmp_path, "list", code=2)
    assert "knows no 'P9'" in manage(folder, "show", "P9", code=2)
    assert not (tmp_path / "gallery.sqlite").exists()
    gallery = open_gallery(folder, SPEC, GalleryConfig(keep=True))
    assert "open in another process" in manage(folder, "list", code=2)
    gallery.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"embedding_space": "space-two"}, "space-two.*space-one"),
        ({"precision": "int8"}, "int8 model.*fp32.*mix_precisions"),
    ],
)
def test_exports_of_another_model_are_refused(folder, manage, tmp_path, change, says):
    other = open_gallery(tmp_path / "o", SPEC.replace(**change), GalleryConfig())
    other.put("P1", unit(1), {"time_s": 0.0})
    other.close()
    manage(tmp_path / "o", "export", tmp_path / "o.npz")
    manage(folder, "import", tmp_path / "o.npz", code=2)
    assert len(manage(folder, "list")["identities"]) == 3


def test_an_import_adds_what_is_missing_and_never_mixes_up_people(folder, manage, tmp_path):
    manage(folder, "export", tmp_path / "a.npz")
    assert manage(folder, "import", tmp_path / "a.npz")["templates"] == 0
    manage(folder, "merge", "P2", "P1")
    manage(folder, "delete", "P3")
    assert manage(folder, "import", tmp_path / "a.npz") == {"templates": 2, "identities": 2}
    fill(tmp_path / "h")
    assert "somebody else" in manage(tmp_path / "h", "import", tmp_path / "a.npz", code=2)
    assert manage(tmp_path / "h", "verify")["templates"] == 6


@pytest.mark.parametrize("cut", [0, 10, 0.5, -1])
def test_damaged_exports_are_refused(folder, manage, tmp_path, cut):
    manage(folder, "export", tmp_path / "a.npz")
    whole = (tmp_path / "a.npz").read_bytes()
    end = int(cut * len(whole)) if isinstance(cut, float) else cut
    (tmp_path / "b.npz").write_bytes(whole[:end])
    assert "b.npz" in manage(tmp_path / "n", "import", tmp_path / "b.npz", code=2)
    middle = len(whole) // 2
    garbled = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    (tmp_path / "b.npz").write_bytes(garbled)
    assert "b.npz" in manage(tmp_path / "n", "import", tmp_path / "b.npz", code=2)
    assert not (tmp_path / "n").exists()
