"""Where two files of one network part: the same pictures through both, layer by layer.

Other precisions are made from the float32 file, and all of them keep its tensors' names: INT8 puts
nodes before a product, FP16 puts casts between nodes, neither renames what a node computes. So a
tensor of one name that the same module computes is the same place in both graphs. INT8 for the CPU
has LayerNorms in one node with their quantisation: they are named as without counterpart, and what
they do wrong shows in the layer that reads them.

First whole layers are held side by side, so that ONNX Runtime fuses inside them what it always
fuses; then each node of the first layer that differs. A layer is the attention, MLP or adapter of a
block, the scan or a projection of a unit, and so on: a block's output would hide them, since what
they add to its residual stream may be small. Rounding adds up on the way: what is found is
where the sum first exceeds a threshold, not which layer rounds most.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx

from calibration.taps import tapped_session
from mambapro.cli import InputError
from mambapro.contract import CAMERA, IMAGES, MODALITY_MASK
from runtime.engines import Cameras, Images, Mask

Triplet = tuple[Images, Mask, Cameras]

INPUT: Final = "input"
"""Pixels, normalised and masked."""
OUTPUT: Final = "output"
"""The embedding, from the concatenated features on."""

_DEEP: Final = ("blocks", "units")
"""Modules that hold the blocks of the tower and the units of Mamba Aggregation."""
_MOVES: Final = frozenset({
    "Cast", "Concat", "Expand", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze",
    "Tile", "Transpose", "Unsqueeze",
})  # fmt: skip
"""Operators that compute nothing: their output differs where their input does."""


@dataclass(frozen=True)
class Point:
    """A place that both graphs have."""

    layer: str
    """A module or a node."""
    tensors: tuple[str, ...]
    """What leaves it."""


@dataclass(frozen=True)
class Difference:
    """How far two files are apart at a point, over all pictures; of its tensors the worst."""

    layer: str
    relative_error: float
    """Length of the difference over the length of the first file's values; inf with NaN."""
    cosine: float
    """Cosine of both files' values; 0 with NaN."""


@dataclass(frozen=True)
class Bisection:
    """What was found."""

    layers: list[Difference]
    """Every layer in the order of the graph."""
    unmatched: list[str]
    """Layers of the first file that the second has not, or has under other names."""
    nodes: list[Difference]
    """Every node of the first layer beyond the threshold; empty when none is."""
    threshold: float
    """Relative error above which a place counts as diverged."""

    @property
    def first_layer(self) -> str | None:
        """The first layer beyond the threshold."""
        return first_beyond(self.layers, self.threshold)

    @property
    def first_node(self) -> str | None:
        """The first node beyond the threshold; None, too, where fused nodes are apart only."""
        return first_beyond(self.nodes, self.threshold)


class Pair:
    """Two files of one network, run side by side in ONNX Runtime on the CPU."""

    def __init__(
        self,
        first: onnx.ModelProto,
        second: onnx.ModelProto,
        *,
        threads: int | None = None,
        native_scan: bool = True,
    ) -> None:
        self._models = first, second
        self._threads, self._native_scan = threads, native_scan
        self._graph = first.graph
        self._layers = _layers(first.graph)
        self._common = _common_tensors(first.graph, second.graph)

    def bisect(self, triplets: Sequence[Triplet], threshold: float) -> Bisection:
        """Return all layers' differences, and the nodes' of the first beyond ``threshold``.

        InputError when the graphs have no layer in common, or one of another shape.
        """
        points = self.layer_points()
        if not points:
            raise InputError(
                "the files have no layer in common; give two files that were made from one export"
            )
        layers = self.differences(points, triplets)
        first = first_beyond(layers, threshold)
        nodes = [] if first is None else self.differences(self.node_points(first), triplets)
        return Bisection(layers, self._unmatched(points), nodes, threshold)

    def layer_points(self) -> list[Point]:
        """Return the layers, each with what other layers read of it."""
        found = {
            layer: tuple(name for name in tensors if name in self._common)
            for layer, tensors in self._leaving().items()
        }
        return [Point(layer, tensors) for layer, tensors in found.items() if tensors]

    def node_points(self, layer: str) -> list[Point]:
        """Return the nodes of ``layer`` that compute something."""
        nodes = [node for node in self._graph.node if self._layers[node.name] == layer]
        kept = [(n.name, tuple(set(n.output) & self._common)) for n in nodes if not _moves(n)]
        return [Point(name, tensors) for name, tensors in kept if tensors]

    def differences(self, points: Sequence[Point], triplets: Iterable[Triplet]) -> list[Difference]:
        """Run both files on ``triplets``, batches of one, and compare at ``points``."""
        names = sorted({name for point in points for name in point.tensors})
        sessions = [
            tapped_session(model, names, threads=self._threads, native_scan=self._native_scan)
            for model in self._models
        ]
        sums = {name: _Sums() for name in names}
        for triplet in triplets:
            feed = dict(zip((IMAGES, MODALITY_MASK, CAMERA), triplet, strict=True))
            runs = (session.run(names, feed) for session in sessions)
            for name, first, second in zip(names, *runs, strict=True):
                sums[name].add(name, first, second)
        found = [_worst(point, sums) for point in points]
        return [difference for difference in found if difference is not None]

    def _leaving(self) -> dict[str, list[str]]:
        """Return what is read outside the layer that computes it; layers by their last output."""
        computed = {out: self._layers[n.name] for n in self._graph.node for out in n.output}
        read = {output.name for output in self._graph.output} | {
            name
            for node in self._graph.node
            for name in node.input
            if computed.get(name) != self._layers[node.name]
        }
        found: dict[str, list[str]] = {}
        for node in self._graph.node:
            layer = self._layers[node.name]
            names = [name for name in node.output if name in read]
            if names and not (layer == node.name and _moves(node)):
                found[layer] = [*found.pop(layer, []), *names]
        return found

    def _unmatched(self, points: Sequence[Point]) -> list[str]:
        matched = {point.layer for point in points}
        return [layer for layer in self._leaving() if layer not in matched]


@dataclass
class _Sums:
    """Sums over all values of a tensor, of all pictures."""

    first: float = 0.0
    second: float = 0.0
    product: float = 0.0
    difference: float = 0.0
    floats: bool = field(default=True)

    def add(
        self, name: str, first: npt.NDArray[np.generic], second: npt.NDArray[np.generic]
    ) -> None:
        if first.shape != second.shape:
            raise InputError(
                f"the tensor {name} is {first.shape} in one file and {second.shape} in the other; "
                "give two files of one network"
            )
        self.floats = first.dtype.kind == "f"
        if self.floats:
            a, b = first.astype(np.float64).ravel(), second.astype(np.float64).ravel()
            self.first += float(a @ a)
            self.second += float(b @ b)
            self.product += float(a @ b)
            self.difference += float((a - b) @ (a - b))

    @property
    def relative_error(self) -> float:
        if not np.isfinite(self.difference):
            return float("inf")
        if self.first == 0:
            return float("inf") if self.difference > 0 else 0.0
        return float(np.sqrt(self.difference / self.first))

    @property
    def cosine(self) -> float:
        length = np.sqrt(self.first * self.second)
        if not np.isfinite(length):
            return 0.0
        return float(self.product / length) if length > 0 else float(self.difference == 0)


def first_beyond(differences: Iterable[Difference], threshold: float) -> str | None:
    """Return the first layer whose relative error is above ``threshold``."""
    beyond = (d.layer for d in differences if d.relative_error > threshold)
    return next(beyond, None)


def _worst(point: Point, sums: dict[str, _Sums]) -> Difference | None:
    """The worst of a point's tensors; None when all of them hold integers: shapes, cameras."""
    own = [sums[name] for name in point.tensors if sums[name].floats]
    if not own:
        return None
    worst = max(own, key=lambda each: each.relative_error)
    return Difference(point.layer, worst.relative_error, worst.cosine)


def _layers(graph: onnx.GraphProto) -> dict[str, str]:
    """Return the layer of each node: a module, of a block or unit that within it, or itself.

    A node without a module that only moves values belongs to what it moves; the other ones are
    the graph's INPUT before the first module, its OUTPUT after that.
    """
    layers: dict[str, str] = {}
    computed: dict[str, str] = {}
    bare = INPUT
    for node in graph.node:
        if "." in node.name:
            layer, bare = _layer(node.name), OUTPUT
        else:
            source = computed.get(node.input[0], INPUT) if _moves(node) else INPUT
            layer = bare if source == INPUT else source
        layers[node.name] = layer
        computed.update(dict.fromkeys(node.output, layer))
    return layers


def _layer(name: str) -> str:
    module = name.rpartition(".")[0]
    parts = module.split(".")
    if len(parts) > 2 and parts[1] in _DEEP:
        return ".".join(parts[:4])
    return module if len(parts) > 1 else name


def _moves(node: onnx.NodeProto) -> bool:
    return node.op_type in _MOVES


def _common_tensors(first: onnx.GraphProto, second: onnx.GraphProto) -> set[str]:
    """Names of tensors that nodes of the same module compute in both graphs."""
    one, other = (
        {name: node.name.rpartition(".")[0] for node in graph.node for name in node.output if name}
        for graph in (first, second)
    )
    return {name for name, module in one.items() if other.get(name) == module}
