"""What is known of a TensorRT engine, in a JSON file beside it: an engine itself says nothing."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mambapro.cli import InputError
from mambapro.config import from_dict, to_dict
from mambapro.files import sha256
from mambapro.spec import ModelSpec

MANIFEST_FORMAT: Final = 1

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plugin:
    """The library that computes the selective scan."""

    file: str
    """Name of the library."""
    operator: str
    """Domain, name and version of the operator."""
    sha256: str
    """Hash of the library."""


@dataclass(frozen=True)
class Device:
    """What an engine depends on besides its model: it runs where all of this is equal."""

    gpu: str
    """Name of the GPU."""
    compute_capability: tuple[int, int]
    """Major and minor."""
    tensorrt: str
    """Version of TensorRT."""
    plugin: Plugin | None
    """None: the scan is a loop of TensorRT's own layers."""


@dataclass(frozen=True)
class EngineManifest:
    """Facts about an engine file; format 1."""

    device: Device
    """Where it was built, and where it runs."""
    spec: ModelSpec
    """Facts about the model."""
    source: str
    """Name of the model file it was built from."""
    source_sha256: str
    """Hash of that file."""
    engine_sha256: str
    """Hash of the engine."""
    batch: tuple[int, int, int]
    """Least, usual and most triplets of a call."""
    workspace_bytes: int | None
    """Most memory that a layer could use; None is no limit."""
    build_s: float
    """How long the build took, s."""
    layers_by_precision: dict[str, int] = field(default_factory=dict)
    """How many layers compute in each element type."""
    layer_precision: dict[str, str] = field(default_factory=dict)
    """Element type of each layer."""
    environment: dict[str, Any] = field(default_factory=dict)
    """Machine, versions and commit."""
    format_version: int = MANIFEST_FORMAT
    """Version of this record."""

    def to_dict(self) -> dict[str, Any]:
        """Return the record for a JSON file."""
        return dict(to_dict(self))


def manifest_path(engine: Path) -> Path:
    """Return where the manifest of ``engine`` lies."""
    return engine.with_name(engine.name + ".json")


def rebuild(precision: str) -> str:
    """Return the command that builds an engine on this device."""
    return f"build it on this device: python export/to_trt.py --{precision}"


def read_manifest(engine: Path) -> EngineManifest:
    """Return the manifest of ``engine``; InputError unless both are there and belong together."""
    if not engine.is_file():
        raise InputError(f"there is no engine {engine}; write one with export/to_trt.py")
    path = manifest_path(engine)
    if not path.is_file():
        raise InputError(
            f"{engine} has no manifest {path.name}, without which nobody knows what it runs on; "
            "copy it too, or build the engine again with export/to_trt.py"
        )
    manifest = _read(path)
    if sha256(engine) != manifest.engine_sha256:
        raise InputError(
            f"{path.name} describes another engine than {engine}: the hashes differ; "
            + rebuild(manifest.spec.precision)
        )
    return manifest


def check_fits(manifest: EngineManifest, device: Device, engine: Path) -> None:
    """Raise InputError, which says what differs, unless ``engine`` runs on ``device``."""
    built = manifest.device
    differences = [
        f"{what} {theirs}, here {ours}"
        for what, theirs, ours in (
            ("compute capability", _dotted(built), _dotted(device)),
            ("TensorRT", built.tensorrt, device.tensorrt),
            ("plugin", _plugin(built), _plugin(device)),
        )
        if theirs != ours
    ]
    if differences:
        raise InputError(
            f"{engine} was built for another device ({built.gpu}): {'; '.join(differences)}; "
            + rebuild(manifest.spec.precision)
        )
    if built.gpu != device.gpu:
        _logger.warning(
            "%s was built on %s and runs on %s: it works, but was timed for the other one",
            engine, built.gpu, device.gpu,
        )  # fmt: skip


def _read(path: Path) -> EngineManifest:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is damaged ({error}); build the engine again with export/to_trt.py"
        ) from error
    if version != MANIFEST_FORMAT:
        raise InputError(
            f"{path} has format version {version}, this software reads {MANIFEST_FORMAT}; build "
            "the engine again with export/to_trt.py"
        )
    return from_dict(EngineManifest, values)


def _dotted(device: Device) -> str:
    return ".".join(map(str, device.compute_capability))


def _plugin(device: Device) -> str:
    return "none" if device.plugin is None else device.plugin.sha256[:12]
