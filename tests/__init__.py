import mambapro  # noqa: F401 (before ONNX Runtime: it switches telemetry off)
