"""MambaPro: the network and what training, export, calibration and runtime share."""

import os

__version__ = "0.1.0"

# ONNX Runtime 1.29 and later report to Microsoft unless this is set before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
