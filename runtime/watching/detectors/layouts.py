"""What detection networks put out, by the layouts that people export, as boxes on their input.

=============  =========================================================================
layout         outputs of one picture
=============  =========================================================================
yolo           (1, 4 + C, N): cx, cy, w, h in input px, then a score a class (YOLOv8, 11)
yolov5         (1, N, 5 + C): cx, cy, w, h, objectness, then a score a class (YOLOv5, 7)
yolo-nms       (1, N, 6): x0, y0, x1, y1 in input px, score, class (YOLOv10, NMS built in)
detr           logits (1, N, C + 1), the last one nothing; boxes (1, N, 4) cx, cy, w, h from
               0 to 1 (DETR)
detr-sigmoid   logits (1, N, C) and the same boxes (Deformable DETR, RT-DETR, RF-DETR raw)
rtdetr         labels (1, N), boxes (1, N, 4) x0, y0, x1, y1 in px of orig_target_sizes,
               scores (1, N) (RT-DETR and D-FINE, by their own exporters)
=============  =========================================================================

In the layouts with a score a class, a box is of its best class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from runtime.config import OutputLayout
from runtime.watching.detectors.interface import Boxes, Scores

Outputs = Mapping[str, npt.NDArray[Any]]
Size = tuple[int, int]
Table = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Candidates:
    """What a network found, before anything is sorted out."""

    boxes: Boxes
    """(N, 4) x0, y0, x1, y1, px of the network's input."""
    scores: Scores
    """(N,) from 0 to 1."""
    classes: npt.NDArray[np.int64]
    """(N,) the network's own numbers."""


@dataclass(frozen=True)
class Layout:
    """One way to lay out outputs."""

    legal: str
    """What the outputs have to be, for whoever gave others."""
    fits: Callable[[Outputs], bool]
    """Whether the shapes of outputs are so."""
    count: Callable[[Outputs], int | None]
    """Number of classes; None if shapes do not tell."""
    read: Callable[[Outputs, Size], Candidates]
    """Outputs of an input of (H, W) px as candidates."""
    sorted_out: bool
    """Whether the network has dropped double boxes itself."""


def _only(outputs: Outputs) -> Table:
    """Return the one output of one picture without its batch axis, float32."""
    (table,) = outputs.values()
    return np.asarray(table[0], np.float32)


def _one(outputs: Outputs) -> tuple[int, ...]:
    """Return the shape of the only output, or ()."""
    return next(iter(outputs.values())).shape if len(outputs) == 1 else ()


def _is_table(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[0] == 1


def _corners(middles: Table) -> Boxes:
    """Return (N, 4) cx, cy, w, h as x0, y0, x1, y1."""
    middle, half = middles[:, :2], middles[:, 2:4] / 2
    return np.concatenate([middle - half, middle + half], axis=1)


def _best(boxes: Boxes, scores: Table) -> Candidates:
    """Return each box with the best of its ``scores`` (N, C)."""
    classes = scores.argmax(axis=1)
    return Candidates(boxes, scores[np.arange(len(scores)), classes], classes)


def _read_yolo(outputs: Outputs, size: Size) -> Candidates:
    table = _only(outputs).T  # (N, 4 + C)
    return _best(_corners(table), table[:, 4:])


def _read_yolov5(outputs: Outputs, size: Size) -> Candidates:
    table = _only(outputs)  # (N, 5 + C)
    return _best(_corners(table), table[:, 5:] * table[:, 4:5])


def _read_yolo_nms(outputs: Outputs, size: Size) -> Candidates:
    table = _only(outputs)  # (N, 6)
    return Candidates(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def _logits_and_boxes(outputs: Outputs) -> tuple[npt.NDArray[Any], npt.NDArray[Any]] | None:
    """Return the two outputs of DETR; boxes are told by name where both could be them."""
    if len(outputs) != 2 or not all(_is_table(o.shape) for o in outputs.values()):
        return None
    four = [name for name, output in outputs.items() if output.shape[2] == 4]
    if len(four) == 2:
        four = [name for name in four if "box" in name]
    if len(four) != 1:
        return None
    (logits,) = (output for name, output in outputs.items() if name != four[0])
    boxes = outputs[four[0]]
    return (logits, boxes) if logits.shape[1] == boxes.shape[1] else None


def _detr_tables(outputs: Outputs, size: Size) -> tuple[Table, Boxes]:
    pair = _logits_and_boxes(outputs)
    assert pair is not None, "outputs that do not fit are refused at open"
    logits, boxes = (np.asarray(output[0], np.float32) for output in pair)
    return logits, _corners(boxes) * np.array([size[1], size[0]] * 2, np.float32)


def _read_detr(outputs: Outputs, size: Size) -> Candidates:
    logits, boxes = _detr_tables(outputs, size)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return _best(boxes, (powers / powers.sum(axis=1, keepdims=True))[:, :-1])


def _read_detr_sigmoid(outputs: Outputs, size: Size) -> Candidates:
    logits, boxes = _detr_tables(outputs, size)
    return _best(boxes, 1 / (1 + np.exp(-logits.clip(-80, 80))))


def _detr_classes(outputs: Outputs) -> int:
    pair = _logits_and_boxes(outputs)
    return 0 if pair is None else int(pair[0].shape[2])


def _fits_rtdetr(outputs: Outputs) -> bool:
    if set(outputs) != {"labels", "boxes", "scores"}:
        return False
    shape = outputs["boxes"].shape
    flat = outputs["labels"].shape == outputs["scores"].shape == shape[:2]
    return _is_table(shape) and shape[2] == 4 and flat


def _read_rtdetr(outputs: Outputs, size: Size) -> Candidates:
    boxes, scores = (np.asarray(outputs[name][0], np.float32) for name in ("boxes", "scores"))
    return Candidates(boxes, scores, np.asarray(outputs["labels"][0], np.int64))


LAYOUTS: Final[dict[OutputLayout, Layout]] = {
    "yolo": Layout(
        "one output (1, 4 + classes, boxes), with more boxes than rows",
        lambda outputs: _is_table(s := _one(outputs)) and 4 < s[1] < s[2],
        lambda outputs: _one(outputs)[1] - 4,
        _read_yolo,
        sorted_out=False,
    ),
    "yolov5": Layout(
        "one output (1, boxes, 5 + classes), with more boxes than columns",
        lambda outputs: _is_table(s := _one(outputs)) and 5 < s[2] < s[1],
        lambda outputs: _one(outputs)[2] - 5,
        _read_yolov5,
        sorted_out=False,
    ),
    "yolo-nms": Layout(
        "one output (1, boxes, 6)",
        lambda outputs: _is_table(s := _one(outputs)) and s[2] == 6,
        lambda outputs: None,
        _read_yolo_nms,
        sorted_out=True,
    ),
    "detr": Layout(
        "two outputs, logits (1, boxes, classes + 1) and boxes (1, boxes, 4)",
        lambda outputs: _detr_classes(outputs) > 1,
        lambda outputs: _detr_classes(outputs) - 1,
        _read_detr,
        sorted_out=True,
    ),
    "detr-sigmoid": Layout(
        "two outputs, logits (1, boxes, classes) and boxes (1, boxes, 4)",
        lambda outputs: _detr_classes(outputs) > 0,
        lambda outputs: _detr_classes(outputs),
        _read_detr_sigmoid,
        sorted_out=True,
    ),
    "rtdetr": Layout(
        "outputs labels (1, boxes), boxes (1, boxes, 4) and scores (1, boxes)",
        _fits_rtdetr,
        lambda outputs: None,
        _read_rtdetr,
        sorted_out=True,
    ),
}
