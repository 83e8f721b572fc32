"""ONNX models in ONNX Runtime, with our operators or by the functions in the file."""

from __future__ import annotations

import onnx
import onnxruntime
import pytest

from mambapro import native


def session(content: onnx.ModelProto, with_library: bool) -> onnxruntime.InferenceSession:
    """Open ``content``; without ``with_library`` ONNX Runtime inlines its functions."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if with_library:
        if native.find_library("onnxruntime") is None:
            pytest.skip("no native library")
        options.register_custom_ops_library(str(native.require_library("onnxruntime")))
    return onnxruntime.InferenceSession(
        content.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
