"""From the settings to detectors, one a rig."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

from mambapro.cli import InputError
from runtime.config import DetectConfig
from runtime.watching.detectors.interface import Detector, View
from runtime.watching.detectors.motion import MotionDetector
from runtime.watching.detectors.network import Network
from runtime.watching.detectors.onnx_detector import OnnxDetector

MakeDetector = Callable[[View], Detector]


def open_detectors(config: DetectConfig) -> MakeDetector:
    """Open what detectors share, and return what makes one for a rig.

    Raises InputError or MissingError for a file, a layout or a class that does not serve.
    """
    if config.kind == "motion":
        return functools.partial(MotionDetector, config)
    if config.kind == "onnx":
        return functools.partial(OnnxDetector, config, Network(config.onnx))
    return functools.partial(_made, config, _own_class(config.kind))


def _own_class(kind: str) -> Any:
    module, _, name = kind.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise InputError(
            f"detect.kind {kind}: {error}; install its package, or set PYTHONPATH to its folder"
        ) from error
    except AttributeError as error:
        raise InputError(f"detect.kind {kind}: {error}") from error
    lacking = [m for m in ("prime", "detect") if not callable(getattr(found, m, None))]
    if lacking:
        raise InputError(
            f"detect.kind {kind}: a detector has the methods prime and detect "
            f"(docs/detectors.md); this one has no {' and no '.join(lacking)}"
        )
    return found


def _made(config: DetectConfig, own: Any, view: View) -> Detector:
    try:
        detector: Detector = own(view, **config.options)
    except TypeError as error:
        raise InputError(
            f"detect.kind {config.kind}: it is made as Class(view, **detect.options): {error}"
        ) from error
    return detector
