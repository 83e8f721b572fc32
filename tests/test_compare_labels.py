"""Names beside points: none lies on another or on a point, all are inside the picture."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from export.label_places import label_points

NAMES = ["PyTorch", "model.onnx", "model.onnx, function", "model.fp16.onnx", "model.int8.onnx"]


def drawn(points):
    figure = Figure(figsize=(6, 4), dpi=100)
    axes = figure.subplots()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    notes = label_points(axes, points, NAMES, ["black"] * len(NAMES))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    return axes, [note.get_window_extent(renderer) for note in notes]


@pytest.mark.parametrize(
    "points",
    [
        [(0.5, 0.5)] * len(NAMES),
        [(0.5 + 0.01 * i, 0.5) for i in range(len(NAMES))],
        [(0.5, 0.5 + 0.02 * i) for i in range(len(NAMES))],
        list(np.random.default_rng(3).uniform(0.3, 0.7, (len(NAMES), 2))),
        [(0.99, 0.99), (0.01, 0.01), (0.99, 0.01), (0.01, 0.99), (0.5, 0.0)],
    ],
    ids=["one place", "a row", "a column", "a cloud", "corners"],
)
def test_labels_do_not_overlap(points):
    axes, boxes = drawn(points)
    frame = axes.get_window_extent()
    for first, second in itertools.combinations(boxes, 2):
        assert not first.overlaps(second)
    for x, y in axes.transData.transform(points):
        assert not any(box.contains(x, y) for box in boxes)
    for box in boxes:
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1


def test_a_lonely_label_is_to_the_right_of_its_point():
    axes, boxes = drawn([(0.2, 0.1 + 0.2 * i) for i in range(len(NAMES))])
    for (x, y), box in zip(
        axes.transData.transform([(0.2, 0.1 + 0.2 * i) for i in range(5)]), boxes, strict=True
    ):
        assert 0 < box.x0 - x < 30
        assert abs((box.y0 + box.y1) / 2 - y) < 3
