"""A float32 graph in float16, types explicit; what loses by it stays float32."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from export.scan_function import FLOAT32_INPUTS, register_schema
from mambapro.cli import CheckError
from mambapro.contract import OP_NAME

FLOAT32_OPERATORS: Final = frozenset({"LayerNormalization", "ReduceL2", "ReduceMean", "Softmax"})
"""Sums over many values, where float16 would lose the small ones."""

_HALF_MAX: Final = float(np.finfo(np.float16).max)


def to_half(model: onnx.ModelProto) -> None:
    """Turn ``model`` into float16 in place; its inputs and its output keep their types.

    Float32 stay FLOAT32_OPERATORS, the way from pixels to the patch convolution, what follows the
    L2 norm, and the scan's parameters; its function computes in float32 whatever comes in. Casts
    stand where the types meet, one for each value. Raises CheckError for a weight beyond float16.
    """
    register_schema()
    floats = _float_values(model)
    graph = model.graph
    halver = _Halver(graph, floats, float32_nodes(graph))
    nodes = list(halver.converted(graph.node))
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    graph.value_info.extend(inferred.graph.value_info)
    onnx.checker.check_model(model)


def float32_nodes(graph: onnx.GraphProto) -> set[str]:
    """Return the names of the nodes that stay float32."""
    convolution = next(node for node in graph.node if node.op_type == "Conv")
    norms = [node for node in graph.node if node.op_type == "ReduceL2"]
    chosen = {node.name for node in graph.node if node.op_type in FLOAT32_OPERATORS}
    return chosen | _before(graph, convolution) | _after(graph, norms)


def _before(graph: onnx.GraphProto, end: NodeProto) -> set[str]:
    """Names of all nodes that ``end`` depends on."""
    wanted, found = set(end.input), set()
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            found.add(node.name)
    return found


def _after(graph: onnx.GraphProto, starts: Iterable[NodeProto]) -> set[str]:
    """Names of all nodes that depend on ``starts``."""
    reached, found = {name for node in starts for name in node.output}, set()
    for node in graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
            found.add(node.name)
    return found


def _float_values(model: onnx.ModelProto) -> set[str]:
    """Names of all float32 values and constants of the graph."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    named = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    return named | {w.name for w in graph.initializer if w.data_type == TensorProto.FLOAT}


class _Halver:
    """Walks the nodes in order and knows the type that each float value has by now."""

    def __init__(self, graph: onnx.GraphProto, floats: set[str], keep: set[str]) -> None:
        self._floats, self._keep = floats, keep
        self._halves: set[str] = set()
        self._weights = {weight.name: weight for weight in graph.initializer}
        self._graph = graph
        self._cast: set[str] = set()
        self._halve_weights()

    def converted(self, nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
        """Yield the nodes, and before each the casts that it is the first to need."""
        for node in nodes:
            for position, name in enumerate(node.input):
                if name in self._floats and self._half(node, position) != (name in self._halves):
                    yield from self._recast(node, position)
            if node.name not in self._keep:
                self._halves.update(name for name in node.output if name in self._floats)
            yield node

    def _half(self, node: NodeProto, position: int) -> bool:
        if node.op_type == OP_NAME and position in FLOAT32_INPUTS:
            return False
        return node.name not in self._keep

    def _recast(self, node: NodeProto, position: int) -> Iterator[NodeProto]:
        source, half = node.input[position], self._half(node, position)
        kind, suffix = (TensorProto.FLOAT16, "half") if half else (TensorProto.FLOAT, "float")
        node.input[position] = target = f"{source}.{suffix}"
        if target not in self._cast:
            self._cast.add(target)
            yield helper.make_node("Cast", [source], [target], f"{target}.Cast", to=kind)

    def _halve_weights(self) -> None:
        """Convert constants that are read as float16 only; the few read as both are cast."""
        readers: dict[str, set[bool]] = defaultdict(set)
        for node in self._graph.node:
            for position, name in enumerate(node.input):
                readers[name].add(self._half(node, position))
        for name, weight in self._weights.items():
            if name in self._floats and readers[name] == {True}:
                weight.CopyFrom(_halved(weight))
                self._halves.add(name)


def _halved(weight: TensorProto) -> TensorProto:
    values = numpy_helper.to_array(weight)
    largest = float(np.abs(values).max(initial=0.0))
    if not largest <= _HALF_MAX:
        raise CheckError(
            f"the weight {weight.name} reaches {largest:g}, float16 ends at {_HALF_MAX:g}; use the "
            "float32 model"
        )
    return numpy_helper.from_array(values.astype(np.float16), weight.name)
