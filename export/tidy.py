"""Name nodes and weights after the modules they come from; drop the tracer's notes."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable
from typing import Final

import onnx

_SCOPES: Final = "pkg.torch.onnx.name_scopes"
"""Note of torch.onnx 2.13 on each node: the chain of modules, then the traced operation."""
_WRAPPER: Final = "network."
"""The attribute under which export/graph.py holds the network."""


def tidy(model: onnx.ModelProto) -> None:
    """Rename in place, so that reports and quantisers can speak of ``tower.blocks.3.mlp.c_fc``.

    A node is called ``<module>.<operator>``, with a number from the second one on. A weight that
    the exporter transposed, and so renamed, is called after the node that reads it.
    """
    used: Counter[str] = Counter()
    for node in model.graph.node:
        name = f"{_module(node)}.{node.op_type}".lstrip(".")
        used[name] += 1
        node.name = name if used[name] == 1 else f"{name}_{used[name] - 1}"
    _rename_weights(model.graph)
    _drop_notes(model)


def _module(node: onnx.NodeProto) -> str:
    notes = {note.key: note.value for note in node.metadata_props}
    scopes = ast.literal_eval(notes.get(_SCOPES, "['']"))
    module = str(scopes[-2]) if len(scopes) > 1 else ""
    return f"{module}.".removeprefix(_WRAPPER).strip(".") if module.startswith("network") else ""


def _rename_weights(graph: onnx.GraphProto) -> None:
    names = {
        weight.name: weight.name.removeprefix(_WRAPPER)
        for weight in graph.initializer
        if weight.name.startswith(_WRAPPER)
    }
    nameless = {weight.name for weight in graph.initializer if len(weight.dims) > 1} - set(names)
    for node in graph.node:
        for position, source in enumerate(node.input):
            if source in nameless and source not in names:
                names[source] = f"{node.name}.input_{position}"
    assert len(set(names.values())) == len(names)
    for weight in graph.initializer:
        weight.name = names.get(weight.name, weight.name)
    for node in graph.node:
        node.input[:] = [names.get(source, source) for source in node.input]
    _forget_shapes_of(graph, names)


def _forget_shapes_of(graph: onnx.GraphProto, renamed: Iterable[str]) -> None:
    gone = set(renamed)
    kept = [value for value in graph.value_info if value.name not in gone]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def _drop_notes(model: onnx.ModelProto) -> None:
    """The tracer notes down source paths and stack traces of the machine it ran on."""
    graph = model.graph
    model.doc_string = graph.doc_string = ""
    noted = (*graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output)
    for item in (model, graph, *noted):
        del item.metadata_props[:]
        item.doc_string = ""
