"""A model file opened so that values inside it can be seen."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnxruntime

from mambapro import native


def tapped_session(
    model: onnx.ModelProto,
    names: Sequence[str],
    *,
    threads: int | None = None,
    native_scan: bool = True,
) -> onnxruntime.InferenceSession:
    """Return a session on the CPU whose outputs are the tensors ``names`` of ``model``.

    Nothing is fused across a tensor that is an output; between them ONNX Runtime fuses what it
    always does. The scan runs by our operator if it is built and ``native_scan`` allows it.
    """
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    del tapped.graph.output[:]
    for name in names:
        tapped.graph.output.add(name=name)  # ONNX Runtime infers its type
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    library = native.find_library("onnxruntime") if native_scan else None
    if library is not None:
        options.register_custom_ops_library(str(library))
    return onnxruntime.InferenceSession(
        tapped.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
