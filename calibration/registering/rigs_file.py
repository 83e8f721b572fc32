"""The rigs file: which cameras there are, and their homographies changed in place.

Only the text of the homographies changes; comments, order and all other keys stay as they are. A
file that says them by aliases is written anew: all keys stay, comments do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from calibration.registering.geometry import Matrix
from mambapro.cli import InputError
from mambapro.contract import MODALITIES, Modality
from mambapro.files import write_text

DIGITS: Final = 10
"""Significant digits of what is written."""


@dataclass(frozen=True)
class Camera:
    """What registration needs to know of a camera."""

    uri: str
    """A relative path is from the folder of the rigs file."""
    homography: Matrix | None
    """What the file says now."""
    offset_s: float


@dataclass(frozen=True)
class Rig:
    """What registration needs to know of a rig."""

    name: str
    reference: Modality
    cameras: dict[Modality, Camera]

    @property
    def others(self) -> list[Modality]:
        """All cameras but the reference."""
        return [m for m in MODALITIES if m in self.cameras and m != self.reference]


def read_rigs(path: Path) -> list[Rig]:
    """Return the rigs of a rigs file; unlike the runtime, take cameras without homography.

    InputError names what is missing.
    """
    values = _parsed(path, _text(path))
    try:
        return [_rig(entry, path.parent) for entry in values["rigs"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is no rigs file ({type(error).__name__}: {error}); see configs/rigs/live.yaml"
        ) from error


def write_homographies(path: Path, rig: str, homographies: Mapping[Modality, Matrix]) -> None:
    """Write ``homographies`` into the rig named ``rig``, whole or not at all."""
    text = _text(path)
    expected = _without_aliases(_parsed(path, text))
    for modality, matrix in homographies.items():
        entry = next(entry for entry in expected["rigs"] if entry["name"] == rig)
        entry["cameras"][modality]["homography"] = _rows(matrix)
    try:
        for modality, matrix in homographies.items():
            text = _replaced(text, rig, modality, _flow(matrix))
        kept = yaml.safe_load(text) == expected
    except (yaml.YAMLError, StopIteration):
        kept = False
    if not kept:  # aliases and merges, which cannot be edited where they are used
        text = yaml.safe_dump(expected, sort_keys=False, default_flow_style=None, width=1000)
    write_text(path, text)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read rigs file {path}: {error}") from error


def _parsed(path: Path, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error


def _rig(entry: Mapping[str, Any], folder: Path) -> Rig:
    cameras = {m: _camera(value, folder) for m, value in entry["cameras"].items()}
    reference = entry.get("reference", "rgb")
    unknown = [name for name in [*cameras, reference] if name not in MODALITIES]
    if unknown or reference not in cameras:
        raise InputError(
            f"rig {entry['name']}: cameras are {', '.join(MODALITIES)}, the reference among them, "
            f"got {', '.join(map(str, cameras))}, reference {reference}"
        )
    return Rig(str(entry["name"]), reference, cameras)


def _camera(entry: Mapping[str, Any], folder: Path) -> Camera:
    uri = str(entry["uri"])
    local = "://" not in uri and not uri.startswith(("usb:", "gst:"))
    rows = entry.get("homography")
    matrix = None if rows is None else np.asarray(rows, np.float64).reshape(3, 3)
    return Camera(str(folder / uri) if local else uri, matrix, float(entry.get("offset_s", 0.0)))


def _without_aliases(values: Any) -> Any:
    """Return ``values`` with a copy of its own wherever an alias shares one."""
    if isinstance(values, dict):
        return {key: _without_aliases(value) for key, value in values.items()}
    if isinstance(values, list):
        return [_without_aliases(value) for value in values]
    return values


def _rows(matrix: Matrix) -> list[list[float]]:
    scaled = matrix / matrix[2, 2]
    return [[float(f"{value:.{DIGITS}g}") for value in row] for row in scaled.tolist()]


def _flow(matrix: Matrix) -> str:
    """Return ``matrix`` as YAML on one line; PyYAML knows how YAML 1.1 wants exponents."""
    return yaml.safe_dump(_rows(matrix), default_flow_style=True, width=1000).strip()


def _replaced(text: str, rig: str, modality: str, flow: str) -> str:
    """Return ``text`` with one camera's homography replaced or added."""
    camera = _camera_node(yaml.compose(text), rig, modality)
    for key, value in camera.value:
        if key.value == "homography":
            begin, end = key.start_mark.index, value.end_mark.index
            tail = text[begin:end]
            return text[:begin] + f"homography: {flow}" + _space_after(tail) + text[end:]
    key, value = camera.value[-1]
    end = len(text[: value.end_mark.index].rstrip())
    if camera.flow_style:
        return text[:end] + f", homography: {flow}" + text[end:]
    line_end = text.find("\n", end)
    line_end = len(text) if line_end < 0 else line_end
    indent = " " * key.start_mark.column
    return text[:line_end] + f"\n{indent}homography: {flow}" + text[line_end:]


def _space_after(taken: str) -> str:
    """Return the white space and comments at the end of a block value, which YAML counts to it."""
    return taken[len(taken.rstrip()) :]


def _camera_node(root: Any, rig: str, modality: str) -> Any:
    for entry in _member(root, "rigs").value:
        if _member(entry, "name").value == rig:
            return _member(_member(entry, "cameras"), modality)
    raise InputError(f"there is no rig {rig}")


def _member(node: Any, name: str) -> Any:
    return next(value for key, value in node.value if key.value == name)
