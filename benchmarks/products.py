"""A model file's matrix products on their own: what ONNX Runtime reaches on nothing else.

The list is read from a profile of the file itself, so it holds the products that really run, in the
kernels that really run them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from export.fused_products import DOMAIN, PRODUCT
from export.token_functions import ATTENTION, PRODUCT_SILU
from mambapro import native

Shape = tuple[int, ...]
FLOAT_PRODUCTS: Final = ("MatMul", "Gemm", "FusedMatMul")


@dataclass(frozen=True)
class Node:
    """One node of a profiled run."""

    kind: str
    milliseconds: float
    inputs: tuple[Shape, ...]
    """Shapes of inputs, without constants that a kernel packed."""
    output: Shape

    @property
    def is_convolution(self) -> bool:
        """Whether it is a convolution over all channels, as that of the patches."""
        return self.kind == "Conv" and self.inputs[1][1] == self.inputs[0][1] > 1

    @property
    def is_product(self) -> bool:
        """Whether it multiplies matrices."""
        return self.kind in (*FLOAT_PRODUCTS, PRODUCT) or self.is_convolution

    @property
    def operands(self) -> tuple[Shape, Shape]:
        """Shapes of a product's two operands, as a plain MatMul or Conv takes them."""
        if self.is_convolution:
            return self.inputs[0], self.inputs[1]
        *stack, rows, columns = self.output
        deep = self.inputs[0][-1]
        if self.multiplies_values:
            return (*stack, rows, deep), (*stack, deep, columns)
        right = self.inputs[1] if self.kind == "MatMul" and len(self.inputs) > 1 else ()
        return self.inputs[0], right or (deep, columns)

    @property
    def products(self) -> tuple[Node, ...]:
        """The products that it is or holds, in ONNX Runtime's kernels: attention holds two."""
        if self.kind == PRODUCT_SILU:
            return (Node(PRODUCT, 0.0, self.inputs[:1], self.output),)
        if self.kind != ATTENTION:
            return (self,) if self.is_product else ()
        tokens, rows, heads, channels = self.inputs[0]
        stack, weights = (rows, heads), (tokens, tokens)
        query, key = (*stack, tokens, channels), (*stack, channels, tokens)
        scores = Node("MatMul", 0.0, (query, key), (*stack, *weights))
        return scores, Node("MatMul", 0.0, ((*stack, *weights), query), query)

    @property
    def multiplies_values(self) -> bool:
        """Whether neither operand is a weight, as within attention."""
        return self.kind in FLOAT_PRODUCTS and len(self.inputs) > 1 and len(self.output) == 4

    @property
    def multiplications(self) -> int:
        """Multiplications of a product."""
        left, right = self.operands
        deep = int(np.prod(right[1:])) if self.is_convolution else left[-1]
        return int(np.prod(self.output)) * deep


def profile(
    path: Path, feeds: Sequence[dict[str, Any]], threads: int, prefix: Path
) -> list[list[Node]]:
    """Run ``path`` twice on each of ``feeds``; return the nodes of each second run."""
    options = session_options(threads)
    options.enable_profiling = True
    options.profile_file_prefix = str(prefix)
    library = native.require_library("onnxruntime")
    options.register_custom_ops_library(str(library))
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    for feed in feeds:
        for _ in range(2):
            session.run(None, feed)
    written = Path(session.end_profiling())
    events = [
        event
        for event in json.loads(written.read_text(encoding="utf-8"))
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time")
    ]
    written.unlink()
    each = len(events) // (2 * len(feeds))
    starts = range(each, len(events), 2 * each)
    return [[_node(event) for event in events[start : start + each]] for start in starts]


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Return the options that OnnxEngine takes."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("optimization.disable_specified_optimizers", "MatMulAddFusion")
    return options


class Products:
    """The products of one file as independent nodes of one graph.

    Weights are as many and as large as the network's, drawn at random; inputs and outputs of one
    shape share a buffer. Scales by channel are there, biases and all other nodes are not.
    """

    def __init__(self, products: Sequence[Node], threads: int):
        self._session = onnxruntime.InferenceSession(
            _model(products).SerializeToString(),
            session_options(threads),
            providers=["CPUExecutionProvider"],
        )

    def bind(self, products: Sequence[Node]) -> Callable[[], None]:
        """Return a call that runs all products at the sizes of ``products``."""
        binding, buffers = self._session.io_binding(), dict[Any, npt.NDArray[Any]]()
        random = np.random.default_rng(0)
        for item in self._session.get_inputs():
            index, side = map(int, item.name.split("_")[1:])
            shape = products[index].operands[side]
            kind = np.uint8 if item.type == "tensor(uint8)" else np.float32
            if (shape, kind) not in buffers:
                buffers[shape, kind] = aligned(random.integers(0, 255, shape).astype(kind))
            binding.bind_cpu_input(item.name, buffers[shape, kind])
        for index, product in enumerate(products):
            key = product.output, "output"
            if key not in buffers:
                buffers[key] = aligned(np.zeros(product.output, np.float32))
            address = buffers[key].ctypes.data
            binding.bind_output(f"y_{index}", "cpu", 0, np.float32, product.output, address)

        def call() -> None:
            assert buffers  # the binding holds addresses only
            self._session.run_with_iobinding(binding)

        return call


def aligned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Copy to memory of torch, which starts on a cache line as the runtime's own does."""
    return torch.from_numpy(array).clone(memory_format=torch.contiguous_format).numpy()


def _node(event: dict[str, Any]) -> Node:
    facts = event["args"]
    inputs, outputs = (
        tuple(tuple(next(iter(item.values()))) for item in facts[key])
        for key in ("input_type_shape", "output_type_shape")
    )
    return Node(facts["op_name"], event["dur"] / 1e3, inputs, outputs[0])


def _model(products: Sequence[Node]) -> onnx.ModelProto:
    random = np.random.default_rng(0)
    nodes, inputs, weights, outputs = [], [], [], []
    for index, product in enumerate(products):
        integer = product.kind == PRODUCT
        left, right = f"x_{index}_0", f"x_{index}_1"
        inputs.append(_input(left, product.operands[0], integer))
        if product.multiplies_values:
            inputs.append(_input(right, product.operands[1], integer))
        else:
            values = random.integers(-127, 128, product.operands[1], np.int8)
            values = values if integer else values.astype(np.float32)
            weights.append(numpy_helper.from_array(values, right))
        node, scales = _bare(product, left, right, f"y_{index}")
        nodes.append(node)
        weights += scales
        outputs.append(helper.make_tensor_value_info(f"y_{index}", TensorProto.FLOAT, None))
    graph = helper.make_graph(nodes, "products", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _input(name: str, shape: Shape, integer: bool) -> onnx.ValueInfoProto:
    kind = TensorProto.UINT8 if integer else TensorProto.FLOAT
    dims = [f"{name}_{axis}" for axis in range(len(shape) - 1)]
    return helper.make_tensor_value_info(name, kind, [*dims, shape[-1]])


def _bare(
    product: Node, left: str, right: str, output: str
) -> tuple[onnx.NodeProto, list[onnx.TensorProto]]:
    """Return the product as a node, and the constants it reads besides its weight."""
    if product.is_convolution:
        size = product.operands[1][2:]
        return helper.make_node("Conv", [left, right], [output], strides=size), []
    if product.kind != PRODUCT:
        return helper.make_node("MatMul", [left, right], [output]), []
    columns = product.operands[1][1]
    constants = {
        "scale": np.float32(0.02),
        "scales": np.full(columns, 0.01, np.float32),
        "zero": np.uint8(128),
        "zeros": np.zeros(columns, np.int8),
    }
    names = [f"{output}_{name}" for name in constants]
    node = helper.make_node(PRODUCT, [left, right, *names], [output], domain=DOMAIN)
    scales = zip(constants.values(), names, strict=True)
    return node, [numpy_helper.from_array(np.asarray(value), name) for value, name in scales]
