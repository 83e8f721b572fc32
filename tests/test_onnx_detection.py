"""Networks of every declared layout give the boxes that others' code gives; wrong ones are told."""

import dataclasses
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from onnx import TensorProto
from supervision.detection.utils.iou_and_nms import box_non_max_suppression
from transformers.models.detr.image_processing_pil_detr import DetrImageProcessorPil
from transformers.models.detr.modeling_detr import DetrObjectDetectionOutput
from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil

from mambapro.cli import InputError, MissingError, run
from runtime.config import DetectConfig, OnnxDetectConfig
from runtime.stream import main
from runtime.watching.detectors.fitting import fit_for, fitted
from runtime.watching.detectors.interface import View
from runtime.watching.detectors.opening import open_detectors
from tests.detection_networks import fixed, red_finder
from tests.runtime_scenes import HOMOGRAPHIES, Walk, write_colour_model, write_scene

SIZE = (64, 96)
"""Of a network's input, which is also the picture's here: what it says is what we get."""
CLASSES = {0: "person", 2: "vehicle", 3: "vehicle"}
GREY = np.full((*SIZE, 3), 120, np.uint8)


def detector(path, view=None, **settings):
    config = OnnxDetectConfig(**{"file": str(path), "classes": CLASSES, **settings})
    make = open_detectors(DetectConfig(kind="onnx", onnx=config))
    return make(view or View("rgb", SIZE, {"rgb": np.eye(3)}, 25.0))


def found(path, **settings):
    """Return {(subject, rounded box): score} of a grey picture."""
    detections = detector(path, **settings).detect({"rgb": GREY})
    boxes = [tuple(box) for box in detections.boxes.round(2).tolist()]
    told = dict(zip(zip(detections.subjects or (), boxes, strict=True),
                    detections.scores.round(4).tolist(), strict=True))  # fmt: skip
    assert len(told) == len(boxes)
    return told


def random_boxes(rng, count):
    """(count, 4) x0, y0, x1, y1 within SIZE."""
    corner = rng.uniform([0, 0], [60, 30], (count, 2))
    return np.concatenate([corner, corner + rng.uniform(8, 30, (count, 2))], axis=1)


def middles(boxes):
    corner, far = boxes[:, :2], boxes[:, 2:]
    return np.concatenate([(corner + far) / 2, far - corner], axis=1)


@pytest.fixture
def scene():
    """Boxes, scores (N, C) and which of them a network should be believed."""
    rng = np.random.default_rng(5)
    return random_boxes(rng, 40), rng.uniform(0, 1, (40, 4)).astype(np.float32) ** 2


def expected(boxes, scores, least, iou):
    """What other people's suppression leaves: by subject, of each box's best class."""
    classes = scores.argmax(axis=1)
    groups = np.array([{0: 0, 2: 1, 3: 1}.get(c, -1) for c in classes])
    best = scores.max(axis=1)
    sure = (best >= least) & (groups >= 0)
    table = np.column_stack([boxes, best, groups])[sure].astype(np.float32)
    kept = table[box_non_max_suppression(table, iou)] if iou is not None else table
    names = ("person", "vehicle")
    return {(names[int(r[5])], tuple(r[:4].round(2).tolist())): round(float(r[4]), 4) for r in kept}


def close(got, wanted):
    assert {name for name, _ in got} == {name for name, _ in wanted} == {"person", "vehicle"}
    for name in ("person", "vehicle"):
        one = sorted((s, box) for (n, box), s in got.items() if n == name)
        two = sorted((s, box) for (n, box), s in wanted.items() if n == name)
        assert len(one) == len(two)
        np.testing.assert_allclose([s for s, _ in one], [s for s, _ in two], atol=2e-4)
        np.testing.assert_allclose([b for _, b in one], [b for _, b in two], atol=0.02)


def test_yolo_is_what_suppression_by_supervision_leaves(tmp_path, scene):
    boxes, scores = scene
    table = np.concatenate([middles(boxes), scores], axis=1).T[None].astype(np.float32)
    path = fixed(tmp_path / "yolo.onnx", {"output0": table})
    got = found(path, layout="yolo", score=0.4, nms_iou=0.3)
    wanted = expected(boxes, scores, 0.4, 0.3)
    assert 4 < len(wanted) < (scores.max(axis=1) >= 0.4).sum() - 4  # something was suppressed
    close(got, wanted)


def test_yolov5_multiplies_by_objectness(tmp_path, scene):
    boxes, scores = scene
    objectness = np.linspace(0.5, 1, len(boxes), dtype=np.float32)[:, None]
    table = np.concatenate([middles(boxes), objectness, scores], axis=1)[None].astype(np.float32)
    path = fixed(tmp_path / "yolov5.onnx", {"output0": table})
    close(
        found(path, layout="yolov5", score=0.3, nms_iou=0.3),
        expected(boxes, scores * objectness, 0.3, 0.3),
    )


def test_yolo_nms_is_taken_as_it_is(tmp_path, scene):
    boxes, scores = scene
    rows = np.column_stack([boxes, scores.max(axis=1), scores.argmax(axis=1)])
    table = np.concatenate([rows, np.zeros((20, 6))])[None].astype(np.float32)  # padded
    path = fixed(tmp_path / "nms.onnx", {"output0": table})
    close(found(path, layout="yolo-nms", score=0.4), expected(boxes, scores, 0.4, None))


def detr_outputs(rng, classes):
    logits = rng.normal(0, 2, (1, 30, classes)).astype(np.float32)
    boxes = middles(random_boxes(rng, 30) / [96, 64, 96, 64])[None].astype(np.float32)
    return logits, boxes


def by_transformers(result):
    names = {0: "person", 2: "vehicle", 3: "vehicle"}
    rows = zip(
        result["labels"].tolist(), result["boxes"].tolist(), result["scores"].tolist(), strict=True
    )
    return {
        (names[label], tuple(np.round(np.clip(box, 0, [96, 64, 96, 64]), 2).tolist())): score
        for label, box, score in rows
        if label in names
    }


def test_detr_is_what_transformers_makes_of_it(tmp_path):
    logits, boxes = detr_outputs(np.random.default_rng(1), 6)
    path = fixed(tmp_path / "detr.onnx", {"logits": logits, "pred_boxes": boxes})
    output = DetrObjectDetectionOutput(
        logits=torch.from_numpy(logits), pred_boxes=torch.from_numpy(boxes)
    )
    (result,) = DetrImageProcessorPil().post_process_object_detection(output, 0.3, [SIZE])
    close(found(path, layout="detr", score=0.3), by_transformers(result))


def test_detr_sigmoid_is_what_transformers_makes_of_it(tmp_path):
    rng = np.random.default_rng(2)
    logits, boxes = detr_outputs(rng, 5)
    # one class a box is likely, as of a trained network; transformers would tell two
    logits = np.where(logits == logits.max(axis=2, keepdims=True), logits, -5).astype(np.float32)
    path = fixed(tmp_path / "rt.onnx", {"boxes": boxes, "scores": logits})
    output = DetrObjectDetectionOutput(
        logits=torch.from_numpy(logits), pred_boxes=torch.from_numpy(boxes)
    )
    (result,) = RTDetrImageProcessorPil().post_process_object_detection(output, 0.6, [SIZE])
    close(found(path, layout="detr-sigmoid", score=0.6), by_transformers(result))


def test_rtdetr_is_told_its_own_size_and_taken_as_it_is(tmp_path, scene):
    boxes, scores = scene
    outputs = {
        "labels": scores.argmax(axis=1)[None],
        "boxes": boxes[None].astype(np.float32),
        "scores": scores.max(axis=1)[None],
    }
    path = fixed(tmp_path / "rtdetr.onnx", outputs, sizes=True)
    close(found(path, layout="rtdetr", score=0.4), expected(boxes, scores, 0.4, None))


def test_a_car_that_is_also_a_truck_is_one_vehicle_and_a_person_in_it_stays(tmp_path):
    rows = [[48, 32, 60, 30, 0, 0, 0.8, 0], [49, 32, 60, 30, 0, 0, 0, 0.7],
            [48, 32, 58, 30, 0.6, 0, 0, 0]]  # fmt: skip
    table = np.zeros((1, 8, 12), np.float32)
    table[0, :, :3] = np.transpose(rows)
    assert sorted(name for name, _ in found(fixed(tmp_path / "a.onnx", {"o": table}))) == [
        "person", "vehicle",
    ]  # fmt: skip


def test_nonsense_of_a_network_is_dropped(tmp_path):
    rows = [[np.nan, 0, 9, 9, 0.9, 0], [200, 200, 240, 240, 0.9, 0], [-5, 5, 20, 60, 0.9, 0],
            [5, 5, 5, 9, 0.9, 0], [5, 5, 20, 30, np.nan, 0], [5, 5, 20, 30, 0.9, 77]]  # fmt: skip
    path = fixed(tmp_path / "a.onnx", {"o": np.array([rows], np.float32)})
    assert list(found(path, layout="yolo-nms")) == [("person", (0, 5, 20, 60))]


@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
@pytest.mark.parametrize("size", [(360, 640), (640, 360), (96, 128), (75, 91)])
def test_a_box_comes_back_to_where_it_was(tmp_path, size, resize):
    """A network that boxes what is red, on pictures of other sizes and proportions than its own."""
    height, width = size
    true = (0.3 * width, 0.25 * height, 0.55 * width, 0.8 * height)
    x0, y0, x1, y1 = (round(v) for v in true)
    shown = np.full((*size, 3), 90, np.uint8)
    shown[y0:y1, x0:x1] = (230, 30, 30)
    view = View("rgb", size, {"rgb": np.eye(3)}, 25.0)
    path = red_finder(tmp_path / "red.onnx")
    seeing = detector(path, view, classes={1: "person"}, resize=resize)
    detections = seeing.detect({"rgb": shown})
    pixel = max(height / 96, width / 128, 1)  # one of the network's, in the picture
    np.testing.assert_allclose(detections.boxes, [[x0, y0, x1, y1]], atol=1.1 * pixel)
    assert detections.subjects == ("person",)
    assert detections.scores.tolist() == [1.0]
    assert len(seeing.detect({"rgb": np.full((*size, 3), 90, np.uint8)}).boxes) == 0


def test_letterbox_keeps_proportions_and_is_grey_around():
    shown = np.full((360, 640, 3), 200, np.uint8)
    fit = fit_for((360, 640), (320, 320), "letterbox")
    laid = fitted(shown, fit, (320, 320))
    assert fit.scale == (0.5, 0.5)
    assert (laid[:70] == 114).all()
    assert (laid[250:] == 114).all()
    assert (laid[70:250] == 200).all()


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, [200 / 255, 100 / 255, 50 / 255]),
        ({"pixels": "byte"}, [200, 100, 50]),
        ({"colours": "bgr"}, [50 / 255, 100 / 255, 200 / 255]),
        ({"pixels": "imagenet"}, [(200 / 255 - 0.485) / 0.229, (100 / 255 - 0.456) / 0.224,
                                  (50 / 255 - 0.406) / 0.225]),
        ({"pixels": "imagenet", "colours": "bgr"},
         [(50 / 255 - 0.406) / 0.225, (100 / 255 - 0.456) / 0.224, (200 / 255 - 0.485) / 0.229]),
    ],
)  # fmt: skip
def test_pixels_are_what_the_network_takes(tmp_path, settings, wanted):
    network = detector(fixed(tmp_path / "n.onnx", YOLO), **settings)._network
    tensor = network._tensor(np.full((*SIZE, 3), (200, 100, 50), np.uint8))
    assert (tensor.shape, tensor.dtype) == ((1, 3, *SIZE), np.float32)
    np.testing.assert_allclose(tensor[0, :, 5, 5], wanted, rtol=1e-5)


def test_in_the_dark_it_looks_at_the_night_camera(tmp_path):
    """What near infrared shows is boxed in the reference's pixels, by the rig's homography."""
    size = (180, 320)
    view = View("rgb", size, HOMOGRAPHIES, 25.0)
    seeing = detector(red_finder(tmp_path / "red.onnx"), view, classes={1: "person"})
    true = np.array([100, 60, 140, 150], np.float32)
    flat = np.full((*size, 3), 120, np.uint8)
    cv2.rectangle(flat, (100, 60), (139, 149), (250, 20, 20), -1)
    nir = cv2.warpPerspective(flat, HOMOGRAPHIES["nir"], (320, 200))
    dark, light = np.full((*size, 3), 9, np.uint8), np.full((*size, 3), 120, np.uint8)
    for pictures in ({"rgb": dark, "nir": nir}, {"nir": nir}):
        np.testing.assert_allclose(seeing.detect(pictures).boxes, [true], atol=4)
    assert len(seeing.detect({"rgb": light, "nir": nir}).boxes) == 0
    assert len(seeing.detect({"rgb": dark}).boxes) == 0
    assert len(seeing.detect({}).boxes) == 0


YOLO = {"output0": np.zeros((1, 8, 84), np.float32)}


@pytest.mark.parametrize(
    ("outputs", "settings", "message"),
    [
        ({"o": np.zeros((1, 84, 8), np.float32)}, {}, r"layout yolo, got o \(1, 84, 8\)"),
        ({"o": np.zeros((1, 8, 84), np.float32)}, {"layout": "yolov5"}, "layout yolov5, got"),
        (YOLO, {"layout": "yolo-nms"}, r"\(1, boxes, 6\) in layout yolo-nms"),
        (YOLO, {"layout": "detr"}, "two outputs, logits"),
        ({"a": np.zeros((1, 9, 4), np.float32), "b": np.zeros((1, 9, 4), np.float32)},
         {"layout": "detr"}, "layout detr, got a"),
        (YOLO, {"layout": "rtdetr"}, "orig_target_sizes"),
        (YOLO, {"classes": {4: "person"}}, r"among 0 to 3 are persons .* got \{4: 'person'\}"),
        (YOLO, {"classes": {}}, "detect.onnx.classes must say"),
        (YOLO, {"size_px": (32, 32)}, r"takes pictures of \(64, 96\) px, .* is \(32, 32\)"),
    ],
)  # fmt: skip
def test_a_file_of_another_layout_is_refused(tmp_path, outputs, settings, message):
    with pytest.raises(InputError, match=message):
        detector(fixed(tmp_path / "network.onnx", outputs), **settings)


def test_an_open_size_has_to_be_said(tmp_path):
    path = fixed(tmp_path / "open.onnx", YOLO, size=("h", "w"), batch="n")
    with pytest.raises(InputError, match="leaves the size of its input open"):
        detector(path)
    assert detector(path, size_px=(320, 480))._network.size == (320, 480)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch": 4}, r"must take one picture \(1, 3, H, W\)"),
        ({"kind": TensorProto.INT32}, "got images .* tensor\\(int32\\)"),
        ({"kind": TensorProto.UINT8}, "set detect.onnx.pixels=byte"),
    ],
)
def test_an_input_that_is_no_picture_is_refused(tmp_path, given, message):
    with pytest.raises(InputError, match=message):
        detector(fixed(tmp_path / "network.onnx", YOLO, **given))


def test_half_precision_is_fed_so(tmp_path):
    table = np.zeros((1, 8, 84), np.float16)
    table[0, :5, 0] = [48, 32, 20, 40, 0.9]
    path = fixed(tmp_path / "half.onnx", {"output0": table}, kind=TensorProto.FLOAT16)
    assert list(found(path)) == [("person", (38, 12, 58, 52))]


def test_what_is_not_there_is_told(tmp_path):
    with pytest.raises(InputError, match=r"set detect\.onnx\.file"):
        open_detectors(DetectConfig(kind="onnx"))
    with pytest.raises(InputError, match="there is no detection network /nowhere"):
        detector("/nowhere.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(InputError, match="is no ONNX model that runs here"):
        detector(tmp_path / "text.onnx")
    with pytest.raises(MissingError, match="has no provider CUDAExecutionProvider"):
        detector(fixed(tmp_path / "n.onnx", YOLO), providers=("CUDAExecutionProvider",))


class Middle:
    """A detector of somebody else's: there is always a person in the middle."""

    def __init__(self, view, size_px=40):
        self.view, self.half = view, size_px / 2

    def prime(self, pictures):
        pass

    def detect(self, pictures):
        from runtime.watching.detectors.interface import Detections

        y, x = (side / 2 for side in self.view.size)
        box = [x - self.half, y - self.half, x + self.half, y + self.half]
        return Detections(np.array([box], np.float32), np.ones(1, np.float32), ("person",))


def test_a_class_of_ones_own_is_a_detector():
    config = DetectConfig(kind="tests.test_onnx_detection:Middle", options={"size_px": 20})
    own = open_detectors(config)(View("rgb", SIZE, {"rgb": np.eye(3)}, 25.0))
    assert own.detect({}).boxes.tolist() == [[38, 22, 58, 42]]


def test_the_detector_of_the_documentation_runs(tmp_path, monkeypatch):
    text = (Path(__file__).parents[1] / "docs/detectors.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "my_detectors.py").write_text(example)
    monkeypatch.syspath_prepend(tmp_path)
    config = DetectConfig(kind="my_detectors:Bright", options={"least": 180})
    bright = open_detectors(config)(View("rgb", SIZE, {"rgb": np.eye(3)}, 25.0))
    shown = GREY.copy()
    shown[10:50, 20:35] = 181
    assert bright.detect({"rgb": shown}).boxes.tolist() == [[20, 10, 35, 50]]
    assert len(bright.detect({"rgb": GREY}).boxes) == len(bright.detect({}).boxes) == 0


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("nobody.knows:It", {}, "No module named 'nobody'.*PYTHONPATH"),
        ("tests.test_onnx_detection:It", {}, "has no attribute 'It'"),
        ("tests.test_onnx_detection:YOLO", {}, "no prime and no detect"),
        ("tests.test_onnx_detection:Middle", {"colour": 1}, "unexpected keyword argument 'colour'"),
    ],
)
def test_a_class_that_is_no_detector_is_refused(kind, options, message):
    with pytest.raises(InputError, match=message):
        open_detectors(DetectConfig(kind=kind, options=options))(
            View("rgb", SIZE, {"rgb": np.eye(3)}, 25.0)
        )


@pytest.mark.parametrize("kind", ["yolo", "a.b", "a b:C", ""])
def test_a_kind_that_is_none_is_refused(kind):
    with pytest.raises(InputError, match=r"motion, onnx or package\.module:Class"):
        DetectConfig(kind=kind)


def test_the_stream_runs_on_a_network(tmp_path, capsys):
    """The red walker is found by the network alone, told as a person and recognised later."""
    walks = {"gate": [Walk("a", 0.6, speed=150), Walk("a", 3.6, speed=150, leftwards=True)]}
    write_scene(tmp_path, walks, 6.6)
    write_colour_model(tmp_path / "person.onnx")
    red_finder(tmp_path / "red.onnx", size=(180, 320), least=0.4)
    settings = [
        f"models.person={tmp_path / 'person.onnx'}", "models.vehicle=null", "detect.kind=onnx",
        f"detect.onnx.file={tmp_path / 'red.onnx'}", "detect.onnx.classes={1: person}",
        "sample.min_height_px=20", "sample.max_person_aspect=1.2", "match.decide_after=2",
    ]  # fmt: skip
    arguments = ["--rigs", str(tmp_path / "rigs.yaml"), "--output", str(tmp_path / "out"),
                 "--no-video", *(a for s in settings for a in ("--set", s))]  # fmt: skip
    assert run(main, arguments) == 0
    events = [json.loads(x) for x in (tmp_path / "out/events.jsonl").read_text().splitlines()]
    told = [(e["subject"], e["known"]) for e in events if e["event"] == "sighting"]
    assert told == [("person", False), ("person", True)]
    assert run(main, [*arguments, "--set", "detect.onnx.layout=detr"]) == 2
    assert "two outputs, logits" in capsys.readouterr().err


def test_options_belong_to_ones_own_class():
    with pytest.raises(InputError, match="kind is motion"):
        dataclasses.replace(DetectConfig(), options={"a": 1})
