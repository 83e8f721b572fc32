"""Little scenes with known answers for the tests of the stream: coloured blocks that walk by."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import cv2
import numpy as np
import yaml

from mambapro.contract import MODALITIES
from mambapro.spec import MatchThreshold, ModelSpec

SIZES = {"rgb": (180, 320), "nir": (200, 320), "tir": (256, 320)}
HOMOGRAPHIES = {
    "rgb": np.eye(3),
    "nir": np.array([[0.96, 0.02, 6.0], [-0.01, 1.05, 4.0], [0.0, 0.0, 1.0]]),
    "tir": np.array([[0.98, -0.02, 5.0], [0.015, 1.36, 3.0], [2e-5, 0.0, 1.0]]),
}
COLOURS = {"a": (220, 40, 40), "b": (40, 60, 220), "c": (230, 200, 30)}
FPS = 25


@dataclass(frozen=True)
class Walk:
    """A block that walks through the reference picture once."""

    identity: str
    start_s: float
    row: int = 60
    speed: float = 60.0
    size: tuple[int, int] = (24, 66)
    leftwards: bool = False

    def box(self, time_s: float) -> tuple[float, float, float, float]:
        along = (time_s - self.start_s) * self.speed - self.size[0]
        x = 320 - self.size[0] - along if self.leftwards else along
        return x, float(self.row), x + self.size[0], float(self.row + self.size[1])


def picture(modality: str, walks: list[Walk], time_s: float, seed: int = 0, night: bool = False):
    """What a camera sees at ``time_s``; blocks have a bright upper half, and noise is on top."""
    scale = 0.1 if night and modality == "rgb" else 1.0
    canvas = background(modality, seed) * scale
    height, width = SIZES["rgb"]
    scene = np.zeros((height, width, 3), np.float32)
    cover = np.zeros((height, width), np.float32)
    for walk in walks:
        x0, y0, x1, y1 = (round(v * 16) for v in walk.box(time_s))
        colour = _colour(walk.identity, modality)
        cv2.rectangle(scene, (x0, y0), (x1 - 16, y1 - 16), [c * scale for c in colour], -1, shift=4)
        middle = (y0 + y1) // 2
        cv2.rectangle(scene, (x0, middle), (x1 - 16, y1 - 16), [c * 0.5 * scale for c in colour],
                      -1, shift=4)  # fmt: skip
        cv2.rectangle(cover, (x0, y0), (x1 - 16, y1 - 16), 1.0, -1, shift=4)
    size = SIZES[modality][::-1]
    scene = cv2.warpPerspective(scene, HOMOGRAPHIES[modality], size)
    cover = cv2.warpPerspective(cover, HOMOGRAPHIES[modality], size)[..., None]
    noise = sensor_noise(modality, round((time_s + 10) * 1e4) % 31)
    return (canvas * (1 - cover) + scene + noise).clip(0, 255).astype(np.uint8)


@lru_cache(maxsize=128)
def sensor_noise(modality: str, seed: int):
    rng = np.random.default_rng([seed, MODALITIES.index(modality)])
    return rng.normal(0, 2.0, (*SIZES[modality], 1)).astype(np.float32)


@lru_cache
def background(modality: str, seed: int):
    rng = np.random.default_rng([seed, MODALITIES.index(modality)])
    rough = rng.uniform(60, 150, (9, 16, 3)).astype(np.float32)
    grey = rough if modality == "rgb" else np.repeat(rough[..., :1], 3, axis=2)
    return cv2.resize(grey, SIZES[modality][::-1], interpolation=cv2.INTER_CUBIC)


def write_clip(path: Path, pictures, times_s) -> Path:
    """Write an H.264 clip with a time stamp for each picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = None
        for image, time_s in zip(pictures, times_s, strict=True):
            if stream is None:
                stream = file.add_stream("libx264", rate=FPS, options={"crf": "16"})
                stream.height, stream.width = image.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.time_base = stream.codec_context.time_base = Fraction(1, 90000)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time_s * 90000), Fraction(1, 90000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def write_scene(
    folder: Path,
    rigs: dict[str, list[Walk]],
    seconds: float | dict[str, float] = 6.0,
    offsets_s: dict[str, float] | None = None,
    night: bool = False,
    seed: int = 0,
) -> Path:
    """Write rigs.yaml, truth.jsonl and the clips; ``seconds`` may differ by modality."""
    offsets_s = offsets_s or {}
    rng = np.random.default_rng(seed)
    lines, listed = [], []
    for rig, walks in rigs.items():
        cameras = {}
        for modality in MODALITIES:
            length = seconds[modality] if isinstance(seconds, dict) else seconds
            true = 0.3 + np.arange(round(length * FPS)) / FPS + rng.uniform(-0.008, 0.008)
            true = true[rng.random(len(true)) > 0.01]
            stamps = true + offsets_s.get(modality, 0.0) + rng.normal(0, 0.002, len(true))
            images = (picture(modality, walks, t, seed, night) for t in true)
            write_clip(folder / rig / f"{modality}.mp4", images, stamps)
            cameras[modality] = {"uri": f"{rig}/{modality}.mp4"}
            if modality != "rgb":
                cameras[modality]["homography"] = HOMOGRAPHIES[modality].tolist()
            lines += [
                {"rig": rig, "modality": modality, "frame": i, "pts_s": p, "time_s": t,
                 "subjects": _subjects(walks, modality, t)}
                for i, (t, p) in enumerate(zip(true.tolist(), stamps.tolist(), strict=True))
            ]  # fmt: skip
        listed.append({"name": rig, "camera": 0, "reference": "rgb", "cameras": cameras})
    (folder / "rigs.yaml").write_text(yaml.safe_dump({"rigs": listed}))
    (folder / "truth.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "rigs.yaml"


class ColourEngine:
    """Embeds a crop as its mean colours: an identity of the scenes above is one colour."""

    def __init__(self, subject: str = "person", space: str = "colour") -> None:
        self.spec = ModelSpec(
            subject, (64, 32), 12, 4, space, "0" * 64,
            match_threshold=MatchThreshold(0.9, 0.01, 0.99, "made up"),
        )  # fmt: skip
        self.batches: list[int] = []

    def embed(self, images, mask, camera):
        assert images.dtype == np.uint8
        assert images.shape[1:] == (3, 64, 32, 3)
        self.batches.append(len(images))
        upper = images[:, :, 16:28, 12:20].astype(np.float32).mean(axis=(2, 3))  # (B, 3, 3)
        upper -= upper.mean(axis=2, keepdims=True)
        flat = np.concatenate([(upper * mask[:, :, None]).reshape(len(images), -1),
                               np.full((len(images), 3), 5.0)], axis=1)  # fmt: skip
        return (flat / np.linalg.norm(flat, axis=1, keepdims=True)).astype(np.float32)


def _colour(identity: str, modality: str) -> tuple[float, float, float]:
    red, green, blue = COLOURS[identity]
    if modality == "rgb":
        return red, green, blue
    return (235.0,) * 3 if modality == "tir" else (0.6 * red + 0.2 * blue + 40,) * 3


def _subjects(walks: list[Walk], modality: str, time_s: float) -> list[dict]:
    height, width = SIZES[modality]
    found = []
    for walk in walks:
        x0, y0, x1, y1 = walk.box(time_s)
        corners = np.array([[[x0, y0], [x1, y0], [x1, y1], [x0, y1]]])
        warped = cv2.perspectiveTransform(corners, HOMOGRAPHIES[modality])[0]
        (left, top), (right, bottom) = warped.min(axis=0), warped.max(axis=0)
        seen = max(0.0, min(right, width) - max(left, 0)) / (right - left)
        if seen > 0:
            box = [max(left, 0), max(top, 0), min(right, width), min(bottom, height)]
            found.append({"identity": walk.identity, "kind": "person",
                          "box": [float(v) for v in box], "visible": float(seen)})  # fmt: skip
    return found


def write_colour_model(path: Path, subject: str = "person", space: str = "colour") -> Path:
    """Write ColourEngine as a model file: the same sums, in standard ONNX operators."""
    import onnx
    from onnx import TensorProto, helper

    from mambapro.spec import write_spec

    def constant(name, values):
        return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)

    inputs = [
        helper.make_tensor_value_info("images", TensorProto.UINT8, ["B", 3, 64, 32, 3]),
        helper.make_tensor_value_info("modality_mask", TensorProto.FLOAT, ["B", 3]),
        helper.make_tensor_value_info("camera", TensorProto.INT64, ["B"]),
    ]
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Slice", ["pixels", "starts", "ends", "rows_columns"], ["middle"]),
        helper.make_node("ReduceMean", ["middle", "rows_columns"], ["colour"], keepdims=0),
        helper.make_node("ReduceMean", ["colour", "last"], ["grey"], keepdims=1),
        helper.make_node("Sub", ["colour", "grey"], ["hue"]),
        helper.make_node("Unsqueeze", ["modality_mask", "last"], ["present"]),
        helper.make_node("Mul", ["hue", "present"], ["seen"]),
        helper.make_node("Flatten", ["seen"], ["flat"]),
        helper.make_node("Pad", ["flat", "pads", "five"], ["padded"]),
        helper.make_node("LpNormalization", ["padded"], ["embedding"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes, "colour", inputs,
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["B", 12])],
        [constant("starts", [16, 12]), constant("ends", [28, 20]), constant("rows_columns", [2, 3]),
         constant("last", [2]), constant("pads", [0, 0, 0, 3]),
         helper.make_tensor("five", TensorProto.FLOAT, [], [5.0])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    write_spec(model, ColourEngine(subject, space).spec)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path
