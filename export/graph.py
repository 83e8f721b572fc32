"""Network -> ONNX graph: the signature of DESIGN section 5, one local function."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any, Final

import onnx
import torch
from onnxscript import opset18 as op
from onnxscript.values import Opset
from torch import Tensor, nn

from export.scan_function import NODE_ATTRIBUTES, register_schema, scan_function
from export.tidy import tidy
from mambapro.contract import CAMERA, EMBEDDING, IMAGES, MODALITY_MASK, OP_DOMAIN, OP_VERSION
from mambapro.model.network import MambaPro

OPSETS: Final = range(18, 24)
"""18 is the lowest torch.onnx writes; newer ones exclude TensorRT releases and gain nothing."""
DEFAULT_OPSET: Final = OPSETS[0]

_TRACED_BATCH: Final = 2
"""Any batch but 0 and 1, which torch.export takes for constants."""


class _Embedder(nn.Module):
    """``embed`` as a forward pass, which is what torch.export traces."""

    def __init__(self, network: MambaPro):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, modality_mask: Tensor, camera: Tensor) -> Tensor:
        # TensorRT takes uint8 as an input of the network and of Cast, of nothing else.
        return self.network.embed(images.float(), modality_mask, camera)


def build_graph(network: MambaPro, opset: int = DEFAULT_OPSET) -> onnx.ModelProto:
    """Return ``network.embed`` as an ONNX model with a dynamic batch; checked by onnx.checker.

    Each selective scan is a node ``mambapro::SelectiveScan`` and, in ``functions``, the same
    operator built from standard ones.
    """
    register_schema()
    batch = torch.export.Dim("B", min=1)
    with _quiet():
        program = torch.onnx.export(
            _Embedder(network).eval(),
            _example(network),
            dynamo=True,
            verbose=False,
            opset_version=opset,
            input_names=[IMAGES, MODALITY_MASK, CAMERA],
            output_names=[EMBEDDING],
            dynamic_shapes=({0: batch}, {0: batch}, {0: batch}),
            custom_translation_table=_translations(),
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    tidy(model)
    opsets = {item.domain: item.version for item in model.opset_import}
    if OP_DOMAIN in opsets:
        model.functions.append(scan_function(opsets[""]))
    onnx.checker.check_model(model)
    return model


def _example(network: MambaPro) -> tuple[Tensor, Tensor, Tensor]:
    height, width = network.config.image_size
    images = torch.zeros(_TRACED_BATCH, 3, height, width, 3, dtype=torch.uint8)
    return images, torch.ones(_TRACED_BATCH, 3), torch.zeros(_TRACED_BATCH, dtype=torch.int64)


def _translations() -> dict[Any, Any]:
    return {
        torch.ops.mambapro.selective_scan.default: _selective_scan,
        torch.ops.aten.scaled_dot_product_attention.default: _attention,
    }


def _selective_scan(u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any, delta_bias: Any) -> Any:
    domain = Opset(OP_DOMAIN, OP_VERSION)
    return domain.SelectiveScan(u, delta, A, B, C, D, delta_bias, **NODE_ATTRIBUTES)


def _attention(query: Any, key: Any, value: Any, *unmasked: Any, **defaults: Any) -> Any:
    """Attention in the five nodes that runtimes recognise and fuse.

    onnxscript 0.7's own translation computes the shape of the transposed key at run time.
    """
    scale = op.Constant(value_float=query.shape[-1] ** -0.5)
    scores = op.MatMul(op.Mul(query, scale), op.Transpose(key, perm=[0, 1, 3, 2]))
    return op.MatMul(op.Softmax(scores, axis=-1), value)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what torch.onnx says about itself: deprecations inside torch, torchvision."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
