"""The thresholds file: written by the command, read by the stream, refused when it fits not."""

import json

import pytest

from calibration.threshold import DEFAULT_CROPS, DEFAULT_TOP, main
from mambapro.cli import InputError, run
from mambapro.synthetic.datasets import write_dataset
from mambapro.thresholds import (
    COMPLETE,
    read_thresholds,
    subset_name,
    thresholds_path,
    write_thresholds,
)
from runtime.config import MatchConfig
from runtime.identity.requirement import Requirement, load_thresholds, shown_by_most, shown_in
from tests.made_up_thresholds import thresholds
from tests.runtime_scenes import ColourEngine, write_colour_model

SPEC = ColourEngine().spec


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("threshold")
    write_dataset(
        "rgbnt201", folder, identities=(1, 14), images_per_camera=2, cameras=2, size=(64, 32),
        workers=1,
    )  # fmt: skip
    write_colour_model(folder / "model.onnx")
    return folder


def test_the_command_writes_what_the_stream_reads(folder, capsys):
    arguments = [str(folder / "model.onnx"), "--data", str(folder), "--far", "0.05", "--json"]
    assert run(main, arguments) == 0
    printed = capsys.readouterr().out.splitlines()
    (result,) = json.loads(printed[-1])["models"]
    found = load_thresholds(folder / "model.onnx", SPEC)
    assert found == read_thresholds(thresholds_path(folder / "model.onnx"))
    assert found.same["rgb"].cosine == result["same"]["rgb"]["cosine"]
    assert found.source == "test split of rgbnt201: 14 identities, 28 visits"
    for threshold in (*found.same.values(), *found.mixed.values()):
        assert threshold.false_match.value <= 0.05
        assert threshold.cosine_low <= threshold.cosine <= threshold.cosine_high
    assert (folder / "model.det.png").stat().st_size > 10_000
    table = "\n".join(printed)
    assert f"{found.mixed['tir'].cosine:.4f}" in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}/absent.onnx"], "there is no model file"),
        (["{folder}/model.onnx", "--data", "{folder}/absent"], "with --data"),
        (["{folder}/model.onnx", "--data", "{folder}", "--far", "2"], "between 0 and 1"),
        (["{folder}/model.onnx", "--data", "{folder}", "--far", "0.001"], "raise --far"),
        (["{folder}/model.onnx", "--data", "{folder}", "--crops", "0"], "--crops"),
        (["{folder}/model.onnx", "--data", "{folder}", "--top", "0"], "--top"),
        (["{folder}/none.onnx", "--far", "2"], "between 0 and 1"),  # before anything is opened
        (["{folder}/text.onnx", "--data", "{folder}"], "is not an ONNX model"),
    ],
)
def test_bad_input_is_exit_2(folder, arguments, message, capsys):
    (folder / "text.onnx").write_text("no model")
    assert run(main, [argument.format(folder=folder) for argument in arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_threshold_is_chosen_for_what_the_stream_decides_by():
    assert (MatchConfig().decide_after, MatchConfig().top) == (DEFAULT_CROPS, DEFAULT_TOP)


def test_what_is_required_depends_on_what_both_show():
    made = thresholds(SPEC, {COMPLETE: 0.5, "rgb": 0.8, "nir+tir": 0.7}, {"rgb": 0.3})
    cases = {
        ("rgb+nir+tir", "rgb+nir+tir"): 0.5, ("rgb", "rgb"): 0.8, ("rgb", "rgb+nir+tir"): 0.3,
        ("rgb+nir+tir", "rgb"): 0.3, ("rgb", "nir+tir"): 0.8, ("nir+tir", "rgb"): 0.8,
    }  # fmt: skip
    for (track, template), expected in cases.items():
        assert made.required(track.split("+"), template.split("+")) == expected
    assert subset_name({"tir", "rgb"}) == "rgb+tir"


def test_a_file_is_read_back_and_a_damaged_one_refused(tmp_path):
    path = tmp_path / "model.thresholds.json"
    made = thresholds(SPEC, {}, {})
    write_thresholds(path, made)
    assert read_thresholds(path) == made
    for text, message in [
        ("", "damaged"),
        ("[]", "damaged"),
        (path.read_text().replace('"format_version": 1', '"format_version": 9'), "version 9"),
        (path.read_text().replace('"rgb+nir": {', '"rgb-nir": {'), "a threshold for each of"),
    ]:
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_thresholds(path)


def test_an_absent_file_and_another_models_are_announced(tmp_path, caplog):
    caplog.set_level("INFO")
    model = tmp_path / "model.onnx"
    assert load_thresholds(model, SPEC) is None
    assert "no model.thresholds.json" in caplog.text
    assert f"calibration/threshold.py {model}" in caplog.text
    other = SPEC.replace(embedding_space="another")
    write_thresholds(thresholds_path(model), thresholds(other, {}, {}))
    assert load_thresholds(model, SPEC) is None
    assert "made for another model (embedding_space another" in caplog.text
    write_thresholds(thresholds_path(model), thresholds(SPEC.replace(precision="int8"), {}, {}))
    assert load_thresholds(model, SPEC) is None


def test_the_settings_come_first_and_the_model_last():
    made = thresholds(SPEC, {"rgb": 0.4}, {})
    assert Requirement(MatchConfig(), SPEC, made).between(["rgb"], ["rgb"]) == 0.4
    assert Requirement(MatchConfig(), SPEC).between(["rgb"], ["rgb"]) == 0.9
    set_by_hand = Requirement(MatchConfig(person_threshold=0.6), SPEC, made)
    assert set_by_hand.between(["rgb"], ["rgb"]) == 0.6


def test_a_track_shows_what_most_of_its_crops_show():
    rgb, two = ("rgb",), ("rgb", "nir")
    assert shown_by_most([two, rgb, rgb]) == ["rgb"]
    assert shown_by_most([two, rgb]) == ["rgb", "nir"]
    assert shown_by_most([("rgb",), ("nir",), ("tir",)]) == ["rgb", "nir", "tir"]
    assert shown_in({"mask": [0, 1, 1]}) == ["nir", "tir"]
    assert shown_in({}) == ["rgb", "nir", "tir"]
