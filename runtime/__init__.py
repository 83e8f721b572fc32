"""Programs that run on a camera box; never import torch."""

import mambapro  # noqa: F401 (before ONNX Runtime: it switches telemetry off)
