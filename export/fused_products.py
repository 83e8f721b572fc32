"""INT8 products as ONNX Runtime's own node: integers in, scaled and with its bias out."""

from __future__ import annotations

from collections import Counter
from typing import Final

import onnx
from onnx import helper

DOMAIN: Final = "com.microsoft"
PRODUCT: Final = "MatMulIntegerToFloat"


def fuse_products(model: onnx.ModelProto) -> None:
    """Make each MatMul of two dequantised values, and the bias added to it, one node; in place.

    ONNX Runtime 1.31 finds the product by itself, but not the bias, which then costs a pass over
    the output; and a product with a bias of two axes it turns into a Gemm of floats.
    """
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    biases = {weight.name for weight in graph.initializer if len(weight.dims) == 1}
    adds = _lone_readers(graph, "Add")
    gone: set[str] = set()
    for node in list(graph.node):
        sources = [makers.get(name) for name in node.input[:2]]
        if node.op_type != "MatMul" or any(_kind(item) != "DequantizeLinear" for item in sources):
            continue
        value, weight = (list(item.input) for item in sources if item is not None)
        add = adds.get(node.output[0])
        bias = [name for name in add.input if name in biases] if add else []
        fused = helper.make_node(
            PRODUCT,
            [value[0], weight[0], value[1], weight[1], value[2], weight[2], *bias],
            add.output if add and bias else node.output,
            name=node.name,
            domain=DOMAIN,
        )
        if add and bias:
            gone.add(add.name)
        node.CopyFrom(fused)
    _drop(graph, gone)
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def _kind(node: onnx.NodeProto | None) -> str:
    return "" if node is None else str(node.op_type)


def _lone_readers(graph: onnx.GraphProto, kind: str) -> dict[str, onnx.NodeProto]:
    """Return nodes of a kind by the values that they alone read."""
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(output.name for output in graph.output)
    return {
        name: node
        for node in graph.node
        if node.op_type == kind
        for name in node.input
        if uses[name] == 1
    }


def _drop(graph: onnx.GraphProto, gone: set[str]) -> None:
    """Drop the nodes called ``gone``, and every DequantizeLinear that nobody reads."""
    read = {name for node in graph.node if node.name not in gone for name in node.input}
    kept = [
        node
        for node in graph.node
        if node.name not in gone and (node.op_type != "DequantizeLinear" or node.output[0] in read)
    ]
    del graph.node[:]
    graph.node.extend(kept)
