"""Checkpoint to model file, and model file against checkpoint."""

import mambapro  # noqa: F401 (before ONNX Runtime: it switches telemetry off)
