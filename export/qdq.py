"""Explicit INT8: QuantizeLinear and DequantizeLinear before matrix products, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import numpy as np
import onnx
from onnx import helper
from onnxruntime.quantization import (
    CalibrationMethod,
    QDQQuantizer,
    QuantType,
    TensorData,
    TensorsData,
)
from onnxruntime.quantization.onnx_model import ONNXModel

from calibration.ranges import Range
from export.fused_products import fuse_products
from export.fused_tokens import fuse_tokens
from export.layers import Layer

Target = Literal["tensorrt", "cpu"]
TARGETS: Final[tuple[Target, ...]] = ("tensorrt", "cpu")

_OPERATORS: Final = ["MatMul", "Conv"]
_APART: Final = ".quantised"


def without_gemm(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` with each Gemm as MatMul and Add, which runtimes fuse alike."""
    wrapped = ONNXModel(model)
    wrapped.replace_gemm_with_matmul()
    wrapped.topological_sort()
    result: onnx.ModelProto = wrapped.model
    return result


def insert(
    model: onnx.ModelProto, layers: Sequence[Layer], ranges: Mapping[str, Range], target: Target
) -> onnx.ModelProto:
    """Return a copy of ``model`` in which ``layers`` are INT8.

    Weights are symmetric, one scale an output channel, and stored as int8. Activations are
    symmetric int8 for ``tensorrt``, asymmetric uint8 for ``cpu``. Outputs stay float: whatever
    comes after, residual sums, LayerNorm, softmax and scan, sees no rounding but the product's.
    For ``cpu`` the products are nodes of ONNX Runtime's own: see export/fused_products.py.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if not layers:  # ONNX Runtime 1.31 takes an empty list of nodes for all
        return copy
    _set_apart(copy.graph, layers)
    limits = {
        layer.activation + _APART: TensorData(
            lowest=np.float32(ranges[layer.activation][0]),
            highest=np.float32(ranges[layer.activation][1]),
        )
        for layer in layers
    }
    quantizer = QDQQuantizer(
        copy,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8 if target == "cpu" else QuantType.QInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, limits),
        nodes_to_quantize=[layer.node for layer in layers],
        nodes_to_exclude=[],
        op_types_to_quantize=_OPERATORS,
        extra_options={
            "ActivationSymmetric": target == "tensorrt",
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": _OPERATORS,
        },
    )
    quantizer.quantize_model()
    result: onnx.ModelProto = quantizer.model.model
    _join(result.graph)
    if target == "cpu":
        fuse_products(result)
        fuse_tokens(result)
    wrapped = ONNXModel(result)
    wrapped.clean_initializers()
    wrapped.topological_sort()
    onnx.checker.check_model(result)
    return result


def _set_apart(graph: onnx.GraphProto, layers: Sequence[Layer]) -> None:
    """Give the layers' inputs names of their own, which residual sums and LayerNorm do not read.

    ONNX Runtime 1.31 quantises a tensor for all of its readers.
    """
    wanted = {layer.node for layer in layers}
    nodes, done = list(graph.node), set()
    del graph.node[:]
    for node in nodes:
        if node.name in wanted:
            source = node.input[0]
            node.input[0] = apart = source + _APART
            if source not in done:
                done.add(source)
                graph.node.append(helper.make_node("Identity", [source], [apart], apart))
        graph.node.append(node)
    kinds = {value.name: value for value in graph.value_info}
    for source in done:
        if source in kinds:
            graph.value_info.add().CopyFrom(kinds[source])
            graph.value_info[-1].name = source + _APART


def _join(graph: onnx.GraphProto) -> None:
    """Take the names of their own away again: Q reads the tensor itself."""
    sources = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Identity" and node.output[0].endswith(_APART)
    }
    kept = [node for node in graph.node if not (node.output and node.output[0] in sources)]
    del graph.node[:]
    for node in kept:
        node.input[:] = [sources.get(name, name) for name in node.input]
        graph.node.append(node)
