"""A detection network in ONNX Runtime: one file, held to its declared layout when it is opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from mambapro.cli import InputError, MissingError
from mambapro.files import in_checkout
from mambapro.preprocess import Picture
from runtime.config import OnnxDetectConfig
from runtime.engines.onnx_engine import check_providers
from runtime.watching.detectors.layouts import LAYOUTS, Candidates

TYPES: Final[Mapping[str, Any]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}
SIZES_INPUT: Final = "orig_target_sizes"
"""Second input of the layout rtdetr, (1, 2) int64 width and height."""
MEAN: Final = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION: Final = np.array([0.229, 0.224, 0.225], np.float32)


class Network:
    """Runs a detection network; several threads may call it."""

    def __init__(self, config: OnnxDetectConfig) -> None:
        """Open ``config.file`` and run it once.

        Raises:
            InputError: there is no such file, or its inputs or outputs are not of the layout.
            MissingError: an execution provider is not there.
        """
        self._config, self._layout = config, LAYOUTS[config.layout]
        self._session = _session(config)
        self._input, self._sizes = self._inputs()
        self._type = TYPES[self._input.type]
        self.size = self._input_size()
        """(H, W) of the input, px."""
        self._check_outputs()

    @property
    def sorted_out(self) -> bool:
        """Whether the network has dropped double boxes itself."""
        return self._layout.sorted_out

    def find(self, picture: Picture) -> Candidates:
        """Return what is in ``picture``, (H, W, 3) uint8 RGB of the input's size."""
        return self._layout.read(self._run(picture), self.size)

    def _run(self, picture: Picture) -> dict[str, npt.NDArray[Any]]:
        feed = {self._input.name: self._tensor(picture)}
        if self._sizes:
            feed[SIZES_INPUT] = np.array([self.size[::-1]], np.int64)
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, feed), strict=True))

    def _tensor(self, picture: Picture) -> npt.NDArray[Any]:
        """Return (1, 3, H, W) in the colours, values and type that the network takes."""
        if self._config.colours == "bgr":
            picture = picture[..., ::-1]
        planes = picture.transpose(2, 0, 1)[None]
        if self._config.pixels == "byte":
            return np.ascontiguousarray(planes, self._type)
        values = planes.astype(np.float32) / 255
        if self._config.pixels == "imagenet":
            order = slice(None, None, -1 if self._config.colours == "bgr" else 1)
            values = (values - MEAN[order, None, None]) / DEVIATION[order, None, None]
        return np.ascontiguousarray(values, self._type)

    def _inputs(self) -> tuple[Any, bool]:
        """Return the picture's input, and whether the network asks for sizes too."""
        inputs = self._session.get_inputs()
        sizes = [item for item in inputs if item.name == SIZES_INPUT]
        pictures = [item for item in inputs if item.name != SIZES_INPUT]
        asked = self._config.layout == "rtdetr"
        if len(pictures) == 1 and len(sizes) == asked and _takes_picture(pictures[0]):
            if pictures[0].type == "tensor(uint8)" and self._config.pixels != "byte":
                raise InputError(f"{self._name} takes uint8: set detect.onnx.pixels=byte")
            return pictures[0], asked
        given = ", ".join(f"{item.name} {item.shape} {item.type}" for item in inputs)
        also = f" and {SIZES_INPUT} (1, 2)" if asked else ""
        raise InputError(
            f"{self._name} must take one picture (1, 3, H, W) of {', '.join(TYPES)}{also} in "
            f"layout {self._config.layout}, got {given}"
        )

    def _input_size(self) -> tuple[int, int]:
        own = tuple(self._input.shape[2:])
        fixed = all(isinstance(value, int) for value in own)
        asked = self._config.size_px
        if asked is None and not fixed:
            raise InputError(
                f"{self._name} leaves the size of its input open: set detect.onnx.size_px, for "
                "example [640, 640]"
            )
        if asked is not None and fixed and asked != own:
            raise InputError(
                f"{self._name} takes pictures of {own} px, detect.onnx.size_px is {asked}"
            )
        height, width = asked or own
        return int(height), int(width)

    def _check_outputs(self) -> None:
        """Run once; refuse outputs of another layout and classes that there are not."""
        try:
            outputs = self._run(np.full((*self.size, 3), 114, np.uint8))
        except Exception as error:  # ORT 1.31 has a class for each status, with no public base
            raise InputError(f"{self._name} does not run: {_line(error)}") from error
        if not self._layout.fits(outputs):
            given = ", ".join(f"{name} {output.shape}" for name, output in outputs.items())
            raise InputError(
                f"{self._name} must have {self._layout.legal} in layout {self._config.layout}, got "
                f"{given}; detect.onnx.layout may be {', '.join(LAYOUTS)}"
            )
        count, classes = self._layout.count(outputs), self._config.classes
        if not classes or min(classes) < 0 or (count is not None and max(classes) >= count):
            known = "" if count is None else f" among 0 to {count - 1}"
            raise InputError(
                f"detect.onnx.classes must say which classes of {self._name}{known} are persons or "
                f"vehicles, as {{0: person, 2: vehicle}}, got {classes}"
            )

    @property
    def _name(self) -> str:
        return str(self._config.file)


def _takes_picture(item: Any) -> bool:
    shape = item.shape
    batch = len(shape) == 4 and (not isinstance(shape[0], int) or shape[0] == 1)
    planes = batch and (not isinstance(shape[1], int) or shape[1] == 3)
    return planes and item.type in TYPES


def _session(config: OnnxDetectConfig) -> onnxruntime.InferenceSession:
    if config.file is None:
        raise InputError("detect.kind is onnx: set detect.onnx.file to the network's ONNX file")
    path = in_checkout(config.file)
    if not Path(path).is_file():
        raise InputError(f"there is no detection network {config.file}: see docs/detectors.md")
    check_providers(config.providers)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = config.threads
    # Idle workers of ONNX Runtime spin; decoding and tracking need those cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=list(config.providers))
    except Exception as error:  # ORT 1.31 has a class for each status, with no public base
        raise InputError(
            f"{config.file} is no ONNX model that runs here: {_line(error)}"
        ) from error
    # ORT 1.31 warns and goes on with the CPU when a provider's own libraries do not load.
    lost = [name for name in config.providers if name not in session.get_providers()]
    if lost:
        raise MissingError(f"{lost[0]} did not start: its libraries or its device are missing")
    return session


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
