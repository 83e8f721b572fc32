"""Tiny detection networks as ONNX files: fixed outputs, or a simple function of the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = [helper.make_opsetid("", 18)]


def picture_input(size=(64, 96), batch=1, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info("images", kind, [batch, 3, *size])


def save(path: Path, nodes, inputs, outputs, constants) -> Path:
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "network", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=OPSET, ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path


def fixed(path: Path, outputs: dict[str, np.ndarray], size=(64, 96), sizes=False, **given) -> Path:
    """A network that finds the same in every picture."""
    nodes = [helper.make_node("Identity", [f"{name}_fixed"], [name]) for name in outputs]
    inputs = [picture_input(size, **given)]
    if sizes:
        inputs.append(helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, [1, 2]))
    infos = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in outputs.items()
    ]
    constants = {f"{name}_fixed": value for name, value in outputs.items()}
    return save(path, nodes, inputs, infos, constants)


def red_finder(path: Path, size=(96, 128), boxes=12, least=0.3) -> Path:
    """A network of layout yolo, whose first box holds all that is red, as class 1 of 3.

    Red is where the first channel is ``least`` over the second, in values from 0 to 1; the other
    boxes are empty and have no score. With nothing red the first has none either.
    """
    height, width = size
    nodes = [
        helper.make_node("Split", ["images"], ["r", "g", "b"], axis=1, num_outputs=3),
        helper.make_node("Sub", ["r", "g"], ["difference"]),
        helper.make_node("Greater", ["difference", "least"], ["is_red"]),
        helper.make_node("Cast", ["is_red"], ["red"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["red", "rows"], ["columns"], keepdims=0),  # (1, W)
        helper.make_node("ReduceMax", ["red", "cols"], ["lines"], keepdims=0),  # (1, H)
        helper.make_node("ReduceMax", ["lines", "last"], ["score"], keepdims=1),  # (1, 1)
    ]
    for axis, seen in (("x", "columns"), ("y", "lines")):
        nodes += [
            helper.make_node("Mul", [seen, f"{axis}_ends"], [f"{axis}_far"]),
            helper.make_node("ReduceMax", [f"{axis}_far", "last"], [f"{axis}1"], keepdims=1),
            helper.make_node("Mul", [seen, f"{axis}_starts"], [f"{axis}_near"]),
            helper.make_node("ReduceMax", [f"{axis}_near", "last"], [f"{axis}_left"], keepdims=1),
            helper.make_node("Sub", [f"{axis}_length", f"{axis}_left"], [f"{axis}0"]),
            helper.make_node("Sub", [f"{axis}1", f"{axis}0"], [f"{axis}_size"]),
            helper.make_node("Add", [f"{axis}1", f"{axis}0"], [f"{axis}_sum"]),
            helper.make_node("Mul", [f"{axis}_sum", "half"], [f"{axis}_middle"]),
        ]
    parts = ["x_middle", "y_middle", "x_size", "y_size", "none", "score", "none"]
    nodes += [
        helper.make_node("Concat", parts, ["flat"], axis=1),  # (1, 7)
        helper.make_node("Unsqueeze", ["flat", "end"], ["one_box"]),  # (1, 7, 1)
        helper.make_node("Pad", ["one_box", "more"], ["output0"]),
    ]
    axis_values = {
        f"{axis}_{name}": value
        for axis, length in (("x", width), ("y", height))
        for name, value in (
            ("ends", np.arange(1, length + 1, dtype=np.float32)),
            ("starts", np.arange(length, 0, -1, dtype=np.float32)),
            ("length", np.array([[length]], np.float32)),
        )
    }
    constants = {
        "least": np.array(least, np.float32), "half": np.array(0.5, np.float32),
        "none": np.zeros((1, 1), np.float32), "rows": np.array([1, 2]), "cols": np.array([1, 3]),
        "last": np.array([1]), "end": np.array([2]),
        "more": np.array([0, 0, 0, 0, 0, boxes - 1]), **axis_values,
    }  # fmt: skip
    output = helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 7, boxes])
    return save(path, nodes, [picture_input(size)], [output], constants)
