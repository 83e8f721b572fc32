"""Ranges, thresholds and registration from data; never imports torch."""

import mambapro  # noqa: F401 (before ONNX Runtime: it switches telemetry off)
