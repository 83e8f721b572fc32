"""Whole scenes: clips, clocks, homographies and ground truth against rendered pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import yaml

from mambapro.cli import InputError
from mambapro.contract import MODALITIES, Modality
from mambapro.synthetic import write_scene
from mambapro.synthetic.clips import Painter
from mambapro.synthetic.rigs import PLANE_PX_PER_M, SIZES, build_rig, frame_times
from mambapro.synthetic.routes import Visit, build_actors, plan_visits
from mambapro.synthetic.scenes import Settings

SECONDS, SEED = 2.0, 4
CLOCK_LIMIT_S = 0.15 + 0.012
"""Largest clock offset and jitter."""
EDGE_PX = 4.0
"""Boxes are whole pixels of a soft, slightly turned outline; the TIR lens blurs most."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "scene"
    return write_scene(root, seed=SEED, seconds=SECONDS, people=2, vehicles=1, workers=1)


@pytest.fixture(scope="module")
def truth(scene: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (scene / "truth.jsonl").read_text().splitlines()]


def visits(seconds: float = SECONDS) -> list[Visit]:
    return plan_visits(build_actors(SEED, 2, 1), SEED, seconds)


def painter(modality: Modality, crossings: list[Visit], rig: int = 0) -> Painter:
    built = build_rig(SEED, rig)
    return Painter(built, built.cameras[modality], crossings, SECONDS, SEED)


def mapped(box: list[int], homography: np.ndarray) -> np.ndarray:
    x0, y0, x1, y1 = box
    corners = np.array([[[x0, y0], [x1, y0], [x1, y1], [x0, y1]]], np.float64)
    placed = cv2.perspectiveTransform(corners, homography)[0]
    return np.concatenate([placed.min(axis=0), placed.max(axis=0)])


def test_rigs_file_names_three_cameras_of_two_rigs(scene: Path) -> None:
    rigs = yaml.safe_load((scene / "rigs.yaml").read_text())["rigs"]
    assert [(rig["name"], rig["camera"], rig["reference"]) for rig in rigs] == [
        ("gate", -1, "rgb"),
        ("yard", -1, "rgb"),
    ]
    for rig in rigs:
        assert list(rig["cameras"]) == list(MODALITIES)
        assert "homography" not in rig["cameras"]["rgb"]
        for modality, camera in rig["cameras"].items():
            with av.open(str(scene / camera["uri"])) as clip:
                video = clip.streams.video[0]
                assert video.codec_context.name == "h264"
                assert (video.width, video.height) == SIZES[modality]
            if modality != "rgb":
                assert np.array(camera["homography"]).shape == (3, 3)


def test_truth_matches_the_files_frame_by_frame(scene: Path, truth: list[dict[str, Any]]) -> None:
    assert truth == sorted(truth, key=lambda line: (line["rig"], line["modality"], line["frame"]))
    for rig in ("gate", "yard"):
        for modality in MODALITIES:
            lines = [line for line in truth if (line["rig"], line["modality"]) == (rig, modality)]
            with av.open(str(scene / rig / f"{modality}.mp4")) as clip:
                times = [frame.time for frame in clip.decode(video=0)]
            assert [line["frame"] for line in lines] == list(range(len(times)))
            np.testing.assert_allclose(times, [line["pts_s"] for line in lines], atol=1e-3)
            assert all(abs(line["pts_s"] - line["time_s"]) <= CLOCK_LIMIT_S for line in lines)


def test_boxes_lie_in_the_picture(truth: list[dict[str, Any]]) -> None:
    seen = {(line["rig"], subject["identity"]) for line in truth for subject in line["subjects"]}
    assert {rig for rig, _ in seen} == {"gate", "yard"}
    for line in truth:
        width, height = SIZES[line["modality"]]
        for subject in line["subjects"]:
            x0, y0, x1, y1 = subject["box"]
            assert 0 <= x0 < x1 <= width
            assert 0 <= y0 < y1 <= height
            assert 0 <= subject["visible"] <= 1


def test_same_seed_same_truth(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"seconds": 0.6, "people": 1, "vehicles": 1, "workers": 1}
    roots = [
        write_scene(tmp_path / str(i), seed=seed, **settings) for i, seed in enumerate((1, 1, 2))
    ]
    texts = [(root / "truth.jsonl").read_bytes() for root in roots]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("kind", ["person", "vehicle"])
def test_box_is_what_the_subject_changes_in_the_thermal_picture(kind: str) -> None:
    # Thermal, because a cast shadow changes the other two outside the box.
    crossing = next(v for v in visits() if v.actor.kind == kind)
    middle = crossing.start_s + 0.5 * crossing.duration_s
    with_subject = painter("tir", [crossing], crossing.rig).compose(middle)
    empty = painter("tir", [], crossing.rig).compose(middle).picture
    changed = np.abs(with_subject.picture.astype(int) - empty) > 8
    x0, y0, x1, y1 = with_subject.subjects[0]["box"]
    rows, columns = np.nonzero(changed)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(found, [x0, y0, x1, y1], atol=EDGE_PX)
    assert changed[y0:y1, x0:x1].mean() > 0.2
    assert with_subject.subjects[0]["visible"] == 1.0


@pytest.mark.parametrize("modality", ["nir", "tir"])
def test_homography_carries_the_reference_box_to_the_other_camera(modality: Modality) -> None:
    for crossing in visits():
        middle = crossing.start_s + 0.5 * crossing.duration_s
        reference = painter("rgb", [crossing], crossing.rig).compose(middle).subjects[0]
        other = painter(modality, [crossing], crossing.rig)
        box = other.compose(middle).subjects[0]["box"]
        np.testing.assert_allclose(
            mapped(reference["box"], other.camera.homography), box, atol=EDGE_PX
        )


def test_nearer_subject_hides_the_farther() -> None:
    first = visits()[0]
    near = Visit(first.actor, 0, 0.0, 1.0, (200, 330), (440, 330), 1.0)
    far = Visit(build_actors(SEED, 3, 0)[2], 0, 0.0, 1.0, (200, 310), (440, 310), 1.0)
    both = painter("rgb", [near, far]).compose(0.5).subjects
    assert both[0]["visible"] < 0.6
    assert both[1]["visible"] == 1.0


def test_clocks_drop_and_jitter_as_stated() -> None:
    rig = build_rig(SEED, 0)
    for modality, camera in rig.cameras.items():
        times = np.array(frame_times(camera, 400.0, 0.25, np.random.default_rng(1)))
        captured, shown = times.T
        assert 0.004 < 1 - len(times) / 10_000 < 0.018
        assert np.all(np.diff(shown) > 0)
        steps = np.diff(captured) * 25
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-6)
        assert 0.0025 < np.std(shown - captured) < 0.0035
        assert abs(np.mean(shown - captured)) < 0.15
        assert abs(camera.phase_s) <= (0.0 if modality == "rgb" else 0.01)


def test_light_falls_from_day_to_night() -> None:
    for index in (0, 1):
        rig = build_rig(SEED, index)
        assert rig.light(0.05, 48).daylight > 0.7
        assert rig.light(0.95, 48).daylight < 0.03


def test_default_plan_brings_people_back_and_never_doubles_them() -> None:
    plan = plan_visits(build_actors(0, 8, 4), 0, 48.0)
    rigs_of = {i: [v.rig for v in plan if v.actor.identity == i] for i in range(1, 13)}
    assert sum({0, 1} <= set(rigs) for rigs in rigs_of.values()) >= 5
    assert any(len(rigs) != len(set(rigs)) for rigs in rigs_of.values())
    assert any(len(set(rigs)) == 1 for rigs in rigs_of.values())
    for time in np.arange(0, 48, 0.25):
        present = [v for v in plan if v.at(float(time)) is not None]
        assert len({v.actor.identity for v in present}) == len(present)
        assert max(sum(v.rig == rig for v in present) for rig in (0, 1)) <= 3


def test_scene_refuses_other_contents_and_bad_settings(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="something else"):
        write_scene(tmp_path)
    with pytest.raises(InputError, match="seconds"):
        write_scene(tmp_path / "new", seconds=0)
    with pytest.raises(InputError, match="person or a vehicle"):
        write_scene(tmp_path / "new", people=0, vehicles=0)


def test_misalignment_and_baseline_leave_the_usual_scene_as_it_is(tmp_path: Path) -> None:
    usual, apart = build_rig(SEED, 0), build_rig(SEED, 0, misalignment=5.0, baseline_m=0.1)
    for modality, camera in usual.cameras.items():
        assert np.array_equal(camera.parallax(40.0), np.eye(3))
        assert apart.cameras[modality].clock_s == camera.clock_s
    tilt = usual.cameras["tir"].homography[0, 1] / apart.cameras["tir"].homography[0, 1]
    assert abs(tilt) < 0.4
    assert Settings(0, 72.0, 12, 6).stamp() == {
        "seed": 0, "seconds": 72.0, "people": 12, "vehicles": 6,
    }  # fmt: skip
    with pytest.raises(InputError, match="misalignment"):
        write_scene(tmp_path / "new", misalignment=-1)


@pytest.mark.parametrize(("modality", "side"), [("nir", -1), ("tir", 1)])
def test_parallax_moves_near_subjects_against_the_homography(modality: Modality, side: int) -> None:
    camera = build_rig(SEED, 0, baseline_m=0.1).cameras[modality]
    shift = camera.parallax(PLANE_PX_PER_M + 20)
    assert shift[0, 2] == pytest.approx(side * 0.1 * 20)  # focal length times baseline over depth
    assert np.array_equal(camera.parallax(PLANE_PX_PER_M), np.eye(3))
