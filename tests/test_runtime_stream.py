"""The command from clips to events, on little scenes and on real footage."""

import errno
import json
import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
import yaml
from PIL import Image

from calibration.images import from_recorded
from mambapro.cli import run
from mambapro.config import load
from runtime.config import StreamConfig, load_rigs, one_camera_rig
from runtime.engines import OnnxEngine
from runtime.feeds.clips import ClipIntake
from runtime.feeds.preflight import preflight
from runtime.picture.video import VideoWriter
from runtime.sources import is_live
from runtime.stream import JSON_KEYS, main
from runtime.watching.detectors.opening import open_detectors
from runtime.watching.rig import RigWatcher
from tests.runtime_scenes import ColourEngine, Walk, write_colour_model, write_scene

ROOT = Path(__file__).parents[1]
VTEST = Path(os.environ.get("MAMBAPRO_VTEST", ROOT / "data" / "vtest" / "vtest.avi"))


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Two rigs; "a" passes both, one after the other, while "b" passes the second."""
    folder = tmp_path_factory.mktemp("scene")
    walks = {
        "gate": [Walk("a", 0.6, speed=150)],
        "yard": [Walk("b", 0.9, speed=150, leftwards=True), Walk("a", 4.2, speed=150)],
    }
    write_scene(folder, walks, 6.6, offsets_s={"rgb": 0.1, "nir": -0.05, "tir": 0.02})
    write_colour_model(folder / "person.onnx")
    return folder


def arguments(scene, output, *more):
    return [
        "--rigs", str(scene / "rigs.yaml"), "--output", str(output),
        "--set", f"models.person={scene / 'person.onnx'}", "--set", "models.vehicle=null",
        "--set", "match.decide_after=2", *more,
    ]  # fmt: skip


def stream(scene, output, *more):
    return run(main, arguments(scene, output, *more))


def events(output):
    return [json.loads(line) for line in (output / "events.jsonl").read_text().splitlines()]


def test_from_clips_to_events(scene, tmp_path, capsys):
    assert stream(scene, tmp_path, "--json") == 0
    *table, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert set(JSON_KEYS) <= set(result)
    assert any("real time" in row for row in table)
    assert result == json.loads((tmp_path / "report.json").read_text())
    assert result["sync_error_p95_ms"] <= 20
    assert result["detection_recall"] > 0.85
    assert result["detection_precision"] > 0.85
    assert result["identity_accuracy_across"] == 1.0
    assert result["identity_counts"] == {"within": 0, "across": 1, "new": 2}
    assert result["frames_dropped"] <= 3
    sightings = [e for e in events(tmp_path) if e["event"] == "sighting"]
    assert [(e["rig"], e["known"]) for e in sightings] == [
        ("gate", False), ("yard", False), ("yard", True),
    ]  # fmt: skip
    assert sightings[2]["identity"] == sightings[0]["identity"]
    assert sightings[2]["seen_at"] == "gate"
    assert all(e["modalities"] == ["rgb", "nir", "tir"] for e in sightings)
    with av.open(str(tmp_path / "mosaic.mp4")) as video:
        frames = sum(1 for _ in video.decode(video=0))
    assert frames == pytest.approx(6.6 * 12.5, rel=0.1)
    for name in ("mosaic.png", "matches.png"):
        assert np.asarray(Image.open(tmp_path / name)).std() > 5
    assert load(StreamConfig, tmp_path / "config.yaml").match.decide_after == 2


def test_the_same_clips_give_the_same_events(scene, tmp_path):
    for name in "ab":
        assert stream(scene, tmp_path / name, "--no-video") == 0
    assert events(tmp_path / "a") == events(tmp_path / "b")
    assert not (tmp_path / "a" / "mosaic.mp4").exists()


def test_a_kept_gallery_knows_them_next_time_and_refuses_another_model(scene, tmp_path, capsys):
    assert stream(scene, tmp_path, "--no-video") == 0
    assert stream(scene, tmp_path, "--no-video", "--keep-gallery") == 0
    assert all(e["known"] for e in events(tmp_path) if e["event"] == "sighting")
    other = write_colour_model(tmp_path / "other.onnx", space="another")
    changed = ["--set", f"models.person={other}", "--keep-gallery", "--no-video"]
    assert stream(scene, tmp_path, *changed) == 2
    assert_one_line(capsys, "colour", "another", "gallery.folder")


def assert_one_line(capsys, *words):
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert len(lines) == 1
    assert all(word in lines[0] for word in words), lines[0]


def test_clips_of_unequal_length_go_on_with_masks(tmp_path, caplog):
    lengths = {"rgb": 4.5, "nir": 4.5, "tir": 2.0}
    write_scene(tmp_path, {"gate": [Walk("a", 0.6, speed=110)]}, lengths)
    write_colour_model(tmp_path / "person.onnx")
    with caplog.at_level(logging.WARNING):
        assert stream(tmp_path, tmp_path / "out", "--no-video") == 0
    said = [r.message for r in caplog.records if "the clip of tir ends" in r.message]
    assert len(said) == 1
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["rigs"]["gate"]["missing"]["tir"] > 50
    assert report["sightings"] == 1


@pytest.fixture
def broken(scene, tmp_path):
    """A copy of the scene to break."""
    shutil.copytree(scene, tmp_path / "scene")
    return tmp_path / "scene"


def test_a_clip_that_cannot_be_decoded_is_named(broken, capsys):
    (broken / "gate" / "nir.mp4").write_bytes(b"nothing")
    assert stream(broken, broken / "out") == 2
    assert_one_line(capsys, "gate/nir.mp4", "Invalid data")


def test_a_missing_clip_is_named(broken, capsys):
    (broken / "yard" / "tir.mp4").unlink()
    assert stream(broken, broken / "out") == 2
    assert_one_line(capsys, "yard/tir.mp4", "No such file")


def test_a_missing_model_says_how_to_make_one(scene, tmp_path, capsys):
    assert stream(scene, tmp_path, "--set", "models.person=none.onnx") == 2
    assert_one_line(capsys, "none.onnx", "train/main.py", "export/to_onnx.py")


def test_a_missing_vehicle_model_is_allowed_when_the_config_says_so(scene, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    gone = ["--set", "models.vehicle=none.onnx", "--no-video"]
    assert stream(scene, tmp_path, *gone, "--set", "models.optional=[]") == 2
    assert stream(scene, tmp_path, *gone, "--set", "models.optional=[vehicle]") == 0
    assert sum("none.onnx" in record.message for record in caplog.records) == 1


def test_a_model_without_metadata_is_refused(scene, tmp_path, capsys):
    import onnx

    model = onnx.load(str(scene / "person.onnx"))
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "bare.onnx"))
    assert stream(scene, tmp_path, "--set", f"models.person={tmp_path / 'bare.onnx'}") == 2
    assert_one_line(capsys, "bare.onnx", "mambapro.spec")


def test_a_model_of_another_subject_is_refused(scene, tmp_path, capsys):
    car = write_colour_model(tmp_path / "car.onnx", subject="vehicle")
    assert stream(scene, tmp_path, "--set", f"models.person={car}") == 2
    assert_one_line(capsys, "car.onnx", "vehicle")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("detect.thermal_night=1", ["detect.thermal_night", "nearest"]),
        ("sync.tolerance_s=soon", ["sync.tolerance_s", "float"]),
        ("track.algorithm=magic", ["bytetrack", "magic"]),
    ],
)
def test_wrong_settings_are_named(scene, tmp_path, capsys, setting, words):
    assert stream(scene, tmp_path, "--set", setting) == 2
    assert_one_line(capsys, *words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rigs: rigs[0].update(reference="tri"), ["reference", "tri"]),
        (lambda rigs: rigs[0]["cameras"]["nir"].pop("homography"), ["gate", "nir", "homography"]),
        (lambda rigs: rigs[0]["cameras"].pop("rgb"), ["gate", "reference camera rgb"]),
        (lambda rigs: rigs[1].update(name="gate"), ["unique"]),
        (lambda rigs: rigs.clear(), ["at least one"]),
    ],
)
def test_wrong_rigs_are_named(broken, capsys, change, words):
    rigs = yaml.safe_load((broken / "rigs.yaml").read_text())
    change(rigs["rigs"])
    (broken / "rigs.yaml").write_text(yaml.safe_dump(rigs))
    assert stream(broken, broken / "out") == 2
    assert_one_line(capsys, "rigs.yaml", *words)


def test_a_full_disk_leaves_the_old_video(scene, tmp_path, capsys, monkeypatch):
    (tmp_path / "mosaic.mp4").write_bytes(b"the good one")

    def full(self, aside):
        aside.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(VideoWriter, "_encode", full)
    assert stream(scene, tmp_path) == 2
    assert_one_line(capsys, "No space left", "mosaic.mp4")
    assert (tmp_path / "mosaic.mp4").read_bytes() == b"the good one"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".mosaic")]


def test_a_failed_run_leaves_the_old_video(scene, tmp_path, monkeypatch):
    (tmp_path / "mosaic.mp4").write_bytes(b"the good one")

    def interrupted(self, images, mask, camera):
        raise KeyboardInterrupt

    monkeypatch.setattr(OnnxEngine, "embed", interrupted)
    assert stream(scene, tmp_path) == 130
    assert (tmp_path / "mosaic.mp4").read_bytes() == b"the good one"


def test_a_camera_that_hangs_does_not_stop_the_others(scene, tmp_path, monkeypatch, caplog):
    from runtime.feeds import clips
    from runtime.sources import FileSource, NothingYet

    class Hanging(FileSource):
        def read(self, timeout_s):
            return NothingYet()

    def opened(uri):
        return (Hanging if uri.endswith("gate/tir.mp4") else FileSource)(uri)

    monkeypatch.setattr(clips, "open_source", opened)
    slow = ["--set", "sync.timeout_s=0.3", "--no-video"]
    assert stream(scene, tmp_path, *slow) == 0
    assert any("no picture from tir" in record.message for record in caplog.records)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["rigs"]["gate"]["missing"]["tir"] == report["rigs"]["gate"]["triplets"]


def test_the_model_file_of_these_tests_is_the_engine_of_these_tests(scene):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (5, 3, 64, 32, 3), np.uint8)
    mask = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 1], [1, 0, 0], [1, 1, 0]], np.float32)
    camera = np.zeros(5, np.int64)
    expected = ColourEngine().embed(images, mask, camera)
    assert np.allclose(
        OnnxEngine(scene / "person.onnx").embed(images, mask, camera), expected, atol=1e-5
    )


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").glob("stream*.yaml")), ids=lambda p: p.stem
)
def test_shipped_configs_load(path):
    assert load(StreamConfig, path).output.startswith("runs/")


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "rigs").glob("*.yaml")), ids=str)
def test_shipped_rigs_load_and_their_cameras_are_live(path):
    rigs = load_rigs(path)
    assert all(is_live(camera.uri) for rig in rigs for camera in rig.cameras.values())


def test_one_clip_makes_a_rig():
    rig = one_camera_rig("some/where/lobby.avi")
    assert (rig.name, list(rig.cameras), rig.camera) == ("lobby", ["rgb"], -1)


PEDESTRIANS = {
    663: [(300, 419), (274, 194), (618, 214), (306, 187), (478, 239), (206, 188), (665, 343)],
}
"""Middles of everybody in a frame of vtest.avi, px: of our detector's boxes, checked by eye. It can
tell that the detector got worse, not how good it is."""


def test_real_pedestrians_are_boxed_and_kept():
    if not VTEST.exists():
        missing = f"there is no {VTEST}; run tests/fetch_vtest.sh {VTEST.parent}"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    config = load(StreamConfig, ROOT / "configs" / "stream_vtest.yaml")
    rig = one_camera_rig(str(VTEST))
    with ThreadPoolExecutor(1) as pool:
        before = preflight(rig, config, pool)
    watcher = RigWatcher(rig, config, before, open_detectors(config.detect))
    intake = ClipIntake(rig, config.sync, before)
    frames: dict[int, list[int]] = {}
    try:
        while (triplet := intake.next()) is not None:
            index = triplet.frames["rgb"].index
            views = watcher.step(triplet).views
            for view in views:
                frames.setdefault(view.track.number, []).append(index)
                assert view.track.subject == "person" or len(view.track.areas) < 10
            for x, y in PEDESTRIANS.get(index, []):
                near = [v for v in views if _holds(v.track.box, x, y)]
                assert len(near) == 1, (index, x, y)
            if index in PEDESTRIANS:
                assert len(views) == len(PEDESTRIANS[index])
    finally:
        intake.close()
    lengths = sorted(len(seen) for seen in frames.values())
    assert 25 <= len(lengths) <= 60  # about thirty people pass in 80 s
    assert lengths[-5] > 120  # the slowest are followed for a dozen seconds
    assert np.median(lengths) > 20


def _holds(box, x, y):
    middle_x, middle_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return abs(middle_x - x) < 15 and abs(middle_y - y) < 20


def test_crops_are_kept_for_calibration(scene, tmp_path, capsys):
    folder = tmp_path / "crops"
    assert stream(scene, tmp_path / "out", "--no-video", "--record-crops", str(folder)) == 0
    triplets = from_recorded(folder, "person", cameras=4)
    assert {triplet.identity.split("/")[0] for triplet in triplets} == {"gate", "yard"}
    kept = [picture for triplet in triplets for picture in triplet.pictures().values()]
    assert len(kept) == len(list(folder.glob("*.png"))) > len(triplets)
    assert all(picture.shape[0] > picture.shape[1] > 4 for picture in kept)
    assert stream(scene, tmp_path / "again", "--record-crops", str(folder)) == 2
    assert "is not empty" in capsys.readouterr().err
