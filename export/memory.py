"""How much memory an engine adds to a process, measured in a process of its own.

The process imports what the engine runs in, sets the kernel's record of its largest resident set
back, notes the resident set, opens the engine and embeds a triplet a few times. The peak of the
resident set (VmHWM of /proc) less what was noted is the engine's: weights, the copies that are
made while it opens, its arena and threads, and our operator library; not Python, NumPy, torch or
ONNX Runtime. Memory of a GPU is not in it. Linux only.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import numpy as np

from export.opening import Opening
from mambapro.contract import MODALITIES, UNKNOWN_CAMERA
from mambapro.files import CHECKOUT
from mambapro.spec import ModelSpec
from runtime.engines import Cameras, Images, Mask

_CALLS: Final = 3
_TIMEOUT_S: Final = 900
_RESET_PEAK: Final = "5"
"""Written to clear_refs it sets the peak to the current resident set (proc(5))."""

_log = logging.getLogger("compare")


def added_memory(opening: Opening) -> int | None:
    """Return by how much the engine raises the peak of a process, bytes; it takes seconds.

    None, and a warning in the log, when that cannot be measured.
    """
    try:
        answer = subprocess.run(
            [sys.executable, "-m", "export.memory", _to_json(opening)],
            cwd=CHECKOUT, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True,
        )  # fmt: skip
        return int(answer.stdout)
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1]
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        reason = str(error)
    _log.warning("memory of %s is not measured: %s", opening.path.name, reason)
    return None


def main(argument: str) -> int:
    """Measure the engine that ``argument`` describes in this process; print bytes."""
    opening = _from_json(argument)
    importlib.import_module("export.torch_engine" if opening.checkpoint else "onnxruntime")
    Path("/proc/self/clear_refs").write_text(_RESET_PEAK, encoding="ascii")
    before = _status_bytes("VmRSS")
    engine = opening.open()
    inputs = _triplet(engine.spec)
    for _ in range(_CALLS):
        engine.embed(*inputs)
    print(_status_bytes("VmHWM") - before)
    return 0


def _triplet(spec: ModelSpec) -> tuple[Images, Mask, Cameras]:
    slots = len(MODALITIES)
    images = np.random.default_rng(0).integers(0, 256, (1, slots, *spec.image_size, 3), np.uint8)
    return images, np.ones((1, slots), np.float32), np.array([UNKNOWN_CAMERA])


def _status_bytes(field: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


def _to_json(opening: Opening) -> str:
    return json.dumps({**dataclasses.asdict(opening), "path": str(opening.path.resolve())})


def _from_json(text: str) -> Opening:
    values = json.loads(text)
    return Opening(
        **{**values, "path": Path(values["path"]), "providers": tuple(values["providers"])}
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
