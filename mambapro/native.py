"""Find the compiled libraries of ``plugins/``. Standard library only: every stage may ask.

``MAMBAPRO_NATIVE=off`` in the environment asks for the portable paths; ``MAMBAPRO_NATIVE_DIR``
names the one folder to look in.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Final, Literal

from mambapro.cli import InputError, MissingError

Part = Literal["torch", "onnxruntime", "tensorrt"]
"""The runtime that loads the library."""

SWITCH: Final = "MAMBAPRO_NATIVE"
FOLDER: Final = "MAMBAPRO_NATIVE_DIR"
ADVICE: Final = (
    f"cmake --preset cpu -DPython3_EXECUTABLE={sys.executable} && cmake --build --preset cpu"
)
"""Not `make build`, which installs what development needs, PyTorch too: a camera box has none."""
GPU_ADVICE: Final = "cmake --preset cuda && cmake --build --preset cuda"
"""Builds all three; on a Jetson with the preset jetson-orin or jetson-thor."""

_SUFFIX: Final = ".so"
_PACKAGE: Final = Path(__file__).resolve().parent


def enabled() -> bool:
    """Whether native code may be used; raises InputError if the switch is neither on nor off."""
    value = os.environ.get(SWITCH, "on")
    if value not in ("on", "off"):
        raise InputError(f"{SWITCH} must be on or off, got {value!r}")
    return value == "on"


def folders() -> list[Path]:
    """Return where libraries are looked for, the first choice first."""
    named = os.environ.get(FOLDER)
    if named:
        return [Path(named)]
    # The checkout's own build, then what an installation of the package brought along.
    return [_PACKAGE.parent / "build" / "lib", _PACKAGE / "lib"]


def find_library(part: Part) -> Path | None:
    """Return the library for ``part``; None if it is not built or native code is switched off."""
    if not enabled():
        return None
    return next((path for path in _candidates(part) if path.is_file()), None)


def require_library(part: Part) -> Path:
    """Return the library for ``part``; raise MissingError with the paths tried if there is none."""
    found = find_library(part)
    if found is None:
        raise MissingError(missing(part))
    return found


def providers(library: Path) -> tuple[str, ...]:
    """Return the execution providers that a library for ONNX Runtime has a kernel for.

    Only a build with CUDA serves ``CUDAExecutionProvider``. Raises MissingError if the library does
    not load, or is too old to say.
    """
    try:
        ask = ctypes.CDLL(str(library)).MambaproProviders
    except (OSError, AttributeError) as error:
        raise MissingError(
            f"{library} does not load: {error}; build it again with `{ADVICE}`, or set {SWITCH}=off"
        ) from error
    ask.restype = ctypes.c_char_p
    return tuple(ask().decode().split())


def missing(part: Part) -> str:
    """Say why there is no library for ``part``, and what to do."""
    if not enabled():
        return f"native code is switched off by {SWITCH}=off"
    tried = ", ".join(map(str, _candidates(part)))
    advice = GPU_ADVICE if part == "tensorrt" else ADVICE
    return f"no native library for {part}: tried {tried}; build it with `{advice}`"


def _candidates(part: Part) -> list[Path]:
    return [folder / f"libmambapro_{part}{_SUFFIX}" for folder in folders()]
