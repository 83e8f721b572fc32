"""Pictures of sightings: what is kept, for how long, and how much of it."""

import os
import time

import cv2
import numpy as np
import pytest

from runtime.config import SinksConfig, SnapshotsConfig
from runtime.sinks import SnapshotStore, open_events
from runtime.sinks.deletions import Deletion

NOW_S = time.time()


@pytest.fixture
def store(tmp_path):
    return SnapshotStore(tmp_path / "snapshots", quality=95, keep_s=100.0, max_bytes=1 << 20)


def crops(red=200):
    """A picture of each modality that is not grey, so that swapped colours show."""
    picture = np.zeros((64, 32, 3), np.uint8)
    picture[...] = red, 40, 90
    return {"rgb": picture, "nir": picture[:32], "tir": picture[:, :16]}


def test_a_picture_of_each_modality_in_its_own_colours(store, tmp_path):
    paths = store.save("P1", "run-00000001", crops())
    assert paths == {m: f"P1/run-00000001_{m}.jpg" for m in ("rgb", "nir", "tir")}
    for modality, path in paths.items():
        kept = cv2.imread(str(tmp_path / "snapshots" / path))[:, :, ::-1]
        wanted = crops()[modality]
        assert kept.shape == wanted.shape
        assert np.abs(kept.astype(int) - wanted).max() <= 6  # JPEG


@pytest.mark.parametrize("identity", ["../../up", "a/b", "..", ".", "Zoë 1"])
def test_no_name_leads_out_of_the_folder(store, tmp_path, identity):
    for path in store.save(identity, "run-00000001", crops()).values():
        kept = (tmp_path / "snapshots" / path).resolve()
        assert kept.is_file()
        assert kept.parent.parent == tmp_path / "snapshots"
    store.forget(Deletion(frozenset([identity])))
    assert list((tmp_path / "snapshots").rglob("*.jpg")) == []


def test_an_identity_or_an_event_is_forgotten_and_nothing_else(store, tmp_path):
    for identity, number in (("P1", 1), ("P1", 2), ("P11", 3), ("P2", 4), ("P2", 5)):
        store.save(identity, f"run-{number:08d}", crops())
    store.forget(Deletion(frozenset(["P1", "nobody"]), frozenset(["run-00000004", "*"])))
    left = {path.name.split("_")[0] for path in (tmp_path / "snapshots").rglob("*.jpg")}
    assert left == {"run-00000003", "run-00000005"}
    assert not (tmp_path / "snapshots" / "P1").exists()


def aged(store, folder, number, age_s):
    for path in store.save(f"P{number}", f"run-{number:08d}", crops()).values():
        os.utime(folder / path, (NOW_S - age_s, NOW_S - age_s))


def test_what_is_old_goes(store, tmp_path):
    for number, age_s in enumerate((500.0, 101.0, 99.0, 0.0)):
        aged(store, tmp_path / "snapshots", number, age_s)
    assert store.expire(NOW_S) == 6
    assert sorted(p.name for p in (tmp_path / "snapshots").iterdir()) == ["P2", "P3"]


def test_above_the_bound_the_oldest_go(tmp_path):
    folder = tmp_path / "snapshots"
    store = SnapshotStore(folder, quality=95, keep_s=1e6, max_bytes=1500)
    for number in range(4):
        aged(store, folder, number, 100.0 - number)
    before = sum(p.stat().st_size for p in folder.rglob("*.jpg"))
    assert before > 1500
    assert store.expire(NOW_S) > 0
    left = sum(p.stat().st_size for p in folder.rglob("*.jpg"))
    assert 0 < left <= 1500
    assert (folder / "P3" / "run-00000003_tir.jpg").is_file()


def test_a_picture_that_cannot_be_written_stops_no_event(tmp_path, caplog):
    (tmp_path / "snapshots").write_text("in the way")
    config = SinksConfig(snapshots=SnapshotsConfig(enabled=True))
    log = open_events(config, tmp_path, live=True)
    identifier = log.write(
        {"event": "sighting", "rig": "gate", "identity": "P1", "time_s": NOW_S}, crops()
    )
    log.close()
    text = (tmp_path / "events.jsonl").read_text()
    assert identifier in text
    assert '"snapshots": null' in text
    assert "no snapshot" in caplog.text
