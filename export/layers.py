"""Which layers INT8 serves, and the groups that are judged together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx

from calibration.ranges import Tap
from mambapro.contract import MODALITIES, Modality

_BY_MODALITY: Final = ("in_proj", "reduce")
"""Modules of Mamba Aggregation with one layer a modality: ``in_proj.0`` is that of rgb."""


@dataclass(frozen=True)
class Layer:
    """A matrix product, or the patch convolution, with a constant weight."""

    node: str
    """Name of the node."""
    activation: str
    """Its input."""
    weight: str
    """Its constant."""
    outputs: int
    """Channels of the output: multiplications that each value of the activation takes part in."""

    @property
    def module(self) -> str:
        """``tower.blocks.3.mlp.c_fc``: the module it comes from."""
        module = self.node.rpartition(".")[0]
        return "tower.proj" if module == "tower" else module

    @property
    def group(self) -> str:
        """``tower.blocks.3.mlp``, ``aggregation.units.0.in_proj``, ``tower.conv1`` and so on."""
        parts = self.module.split(".")
        deep = parts[1] in ("blocks", "units")
        return ".".join(parts[: 4 if deep else 2])

    @property
    def reads_pixels(self) -> bool:
        """Whether it is the patch convolution."""
        return self.module == "tower.conv1"

    @property
    def tap(self) -> Tap:
        """Where its input is observed."""
        return Tap(self.activation, self._modality, self.module.startswith("tower.blocks."))

    @property
    def _modality(self) -> Modality | None:
        *_, parent, index = self.module.split(".")
        return MODALITIES[int(index)] if parent in _BY_MODALITY else None


def int8_layers(model: onnx.ModelProto) -> list[Layer]:
    """Return the layers that may become INT8, in graph order.

    Left out are the scan's projections W_x and W_dt, whose errors the scan adds up, and depthwise
    convolutions.
    """
    weights = {weight.name: weight for weight in model.graph.initializer}
    return [
        Layer(node.name, node.input[0], node.input[1], _outputs(node, weights[node.input[1]]))
        for node in model.graph.node
        if len(node.input) > 1 and node.input[1] in weights and _fits(node)
    ]


def groups(layers: Sequence[Layer]) -> list[str]:
    """Return the names of the groups of ``layers`` in graph order."""
    return list(dict.fromkeys(layer.group for layer in layers))


def labels_of(layers: Sequence[Layer]) -> dict[str, str]:
    """Return what to call each activation: after the first layer that reads it."""
    return {layer.activation: layer.module for layer in reversed(layers)}


def _fits(node: onnx.NodeProto) -> bool:
    if node.op_type == "Conv":
        return all(item.i == 1 for item in node.attribute if item.name == "group")
    return node.op_type in ("MatMul", "Gemm") and ".ssm." not in node.name


def _outputs(node: onnx.NodeProto, weight: onnx.TensorProto) -> int:
    transposed = any(item.name == "transB" and item.i for item in node.attribute)
    first = node.op_type == "Conv" or transposed
    return int(np.asarray(weight.dims)[0 if first else -1])
