"""One node for what stands between two INT8 products, which ONNX Runtime would run in passes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final

import onnx
from onnx import helper, numpy_helper

from export.fused_products import PRODUCT
from export.token_functions import (
    ADD_NORM,
    ATTENTION,
    FROM_HEADS,
    NORM,
    PRODUCT_SILU,
    PRODUCT_STEP,
    SILU,
    TO_HEADS,
    TO_HEADS_TRANSPOSED,
    token_function,
)
from mambapro.contract import OP_DOMAIN, OP_VERSION

_QUANTISE: Final = "QuantizeLinear"


def fuse_tokens(model: onnx.ModelProto) -> None:
    """Make each chain that ends in QuantizeLinear one node of ours with a function; in place.

    Nodes come out of order. A new one is called after the module that its chain comes from.
    """
    for last, fuse in _CHAINS:
        graph = _Graph(model.graph)
        for node in model.graph.node:
            if node.op_type == last:
                fuse(graph, node)
        graph.replace()
    used = {node.op_type for node in model.graph.node if node.domain == OP_DOMAIN}
    opsets = {item.domain: item.version for item in model.opset_import}
    needed = used | ({SILU} if PRODUCT_SILU in used else set())  # the function of one has the other
    for name in sorted(needed & {SILU, NORM, ADD_NORM, ATTENTION, PRODUCT_SILU}):
        model.functions.append(token_function(name, opsets[""]))
    if used and OP_DOMAIN not in opsets:
        model.opset_import.append(helper.make_opsetid(OP_DOMAIN, OP_VERSION))


class _Graph:
    """Who makes and who reads each value, which nodes are to go, and which come."""

    def __init__(self, graph: onnx.GraphProto):
        self._graph = graph
        self._makers = {name: node for node in graph.node for name in node.output}
        self._readers: defaultdict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self._readers[name].append(node)
        self._outputs = {output.name for output in graph.output}
        self.constants = {weight.name: weight for weight in graph.initializer}
        self._gone: set[str] = set()
        self._new: list[onnx.NodeProto] = []

    def maker(self, value: str, kind: str) -> onnx.NodeProto | None:
        """Return the node of ``kind`` that makes ``value``."""
        node = self._makers.get(value)
        return node if node is not None and node.op_type == kind else None

    def lone(self, value: str, kind: str) -> onnx.NodeProto | None:
        """Return the node of ``kind`` that makes ``value``, if one node reads that."""
        alone = value not in self._outputs and len(self._readers[value]) == 1
        return self.maker(value, kind) if alone else None

    def reader(self, value: str, kind: str) -> onnx.NodeProto | None:
        """Return the one node of ``kind`` that reads ``value``."""
        found = [node for node in self._readers[value] if node.op_type == kind]
        return found[0] if len(found) == 1 else None

    def put(
        self,
        kind: str,
        gone: Sequence[onnx.NodeProto],
        inputs: Sequence[str],
        outputs: Sequence[str],
        **attributes: Any,
    ) -> None:
        """Put a node of ours in the place of the nodes ``gone``, with the module of the first."""
        name = f"{gone[0].name.rpartition('.')[0]}.{kind}"
        node = helper.make_node(kind, inputs, outputs, name, domain=OP_DOMAIN, **attributes)
        self._gone.update(item.name for item in gone)
        self._new.append(node)

    def put_standard(self, node: onnx.NodeProto) -> None:
        """Put a node of the standard domain."""
        self._new.append(node)

    def replace(self) -> None:
        """Do what was put."""
        kept = [node for node in self._graph.node if node.name not in self._gone]
        del self._graph.node[:]
        self._graph.node.extend([*kept, *self._new])


def _fuse_add_norm(graph: _Graph, quantise: onnx.NodeProto) -> None:
    """Residual sum, LayerNorm and both of their quantisations: what MLP and adapter read."""
    norm = _norm_before(graph, quantise)
    if norm is None:
        return
    total = graph.maker(norm.input[0], "Add")
    other = graph.reader(norm.input[0], _QUANTISE)
    if total is None or other is None or any(name in graph.constants for name in total.input):
        return
    graph.put(
        ADD_NORM,
        [norm, total, quantise, other],
        [*total.input, *norm.input[1:], *quantise.input[1:], *other.input[1:]],
        [*total.output, *quantise.output, *other.output],
        epsilon=_attribute(norm, "epsilon", 1e-5),
    )


def _fuse_norm(graph: _Graph, quantise: onnx.NodeProto) -> None:
    norm = _norm_before(graph, quantise)
    if norm is not None:
        inputs = [*norm.input, *quantise.input[1:]]
        epsilon = _attribute(norm, "epsilon", 1e-5)
        graph.put(NORM, [norm, quantise], inputs, quantise.output, epsilon=epsilon)


def _norm_before(graph: _Graph, quantise: onnx.NodeProto) -> onnx.NodeProto | None:
    """Return the LayerNorm over one axis, with gain and shift, that ``quantise`` alone reads."""
    norm = graph.lone(quantise.input[0], "LayerNormalization")
    if norm is None or len(norm.input) != 3 or _attribute(norm, "axis", -1) != -1:
        return None
    one_axis = all(len(graph.constants[name].dims) == 1 for name in norm.input[1:])
    return norm if one_axis else None


def _fuse_silu(graph: _Graph, quantise: onnx.NodeProto) -> None:
    product = graph.lone(quantise.input[0], "Mul")
    if product is None:
        return
    x, factor = product.input
    gate = graph.lone(factor, "Sigmoid")
    if gate is not None and gate.input[0] == x:
        inputs = [x, *quantise.input[1:]]
        graph.put(SILU, [gate, product, quantise], inputs, quantise.output)


def _fuse_product(graph: _Graph, silu: onnx.NodeProto) -> None:
    """Put SILU into the integer product before it, with a symmetric weight and a bias."""
    product = graph.lone(silu.input[0], PRODUCT)
    if product is None or len(product.input) != 7:
        return
    x, weight, x_scale, weight_scale, x_zero_point, weight_zero_point, bias = product.input
    sizes = graph.constants[weight].dims
    if (
        any(size % PRODUCT_STEP for size in sizes)
        or numpy_helper.to_array(graph.constants[weight_zero_point]).any()
    ):
        return
    inputs = [x, weight, x_scale, x_zero_point, weight_scale, bias, *silu.input[1:]]
    graph.put(PRODUCT_SILU, [product, silu], inputs, silu.output)


def _fuse_attention(graph: _Graph, quantise: onnx.NodeProto) -> None:
    """Attention as export/graph.py writes it, on (tokens, rows, heads, channels)."""
    flat = graph.lone(quantise.input[0], "Reshape")
    back = flat and graph.lone(flat.input[0], "Transpose")
    product = back and graph.lone(back.input[0], "MatMul")
    softmax = product and graph.lone(product.input[0], "Softmax")
    scores = softmax and graph.lone(softmax.input[0], "MatMul")
    scaled = scores and graph.lone(scores.input[0], "Mul")
    if not (flat and back and product and softmax and scores and scaled):
        return
    query = graph.lone(scaled.input[0], "Transpose")
    key = graph.lone(scores.input[1], "Transpose")
    value = graph.lone(product.input[1], "Transpose")
    factor = graph.constants.get(scaled.input[1])
    if not (query and key and value and factor):
        return
    turned = (TO_HEADS, TO_HEADS_TRANSPOSED, TO_HEADS, FROM_HEADS)
    if [_attribute(node, "perm", []) for node in (query, key, value, back)] != list(turned):
        return
    quantised = f"{back.output[0]}.quantised"
    graph.put(
        ATTENTION,
        [product, softmax, scores, scaled, query, key, value, back, flat, quantise],
        [query.input[0], key.input[0], value.input[0], *quantise.input[1:]],
        [quantised],
        factor=float(numpy_helper.to_array(factor)),
    )
    shape = [quantised, flat.input[1]]
    graph.put_standard(helper.make_node("Reshape", shape, quantise.output, flat.name))


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    found = [helper.get_attribute_value(item) for item in node.attribute if item.name == name]
    return found[0] if found else default


_CHAINS: Final[Sequence[tuple[str, Callable[[_Graph, onnx.NodeProto], None]]]] = (
    (_QUANTISE, _fuse_add_norm),
    (_QUANTISE, _fuse_norm),
    (_QUANTISE, _fuse_silu),
    (_QUANTISE, _fuse_attention),
    (SILU, _fuse_product),
)
"""What fuses, by the operator that a chain ends in; a later one may take what one before put."""
