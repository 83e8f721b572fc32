"""Measurements: each compares in one run and writes JSON; README's tables are made from it."""

import mambapro  # noqa: F401 (before ONNX Runtime: it switches telemetry off)
