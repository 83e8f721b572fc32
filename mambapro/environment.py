"""What a figure depends on besides its config: device, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any, Final

PACKAGES: Final = (
    "mambapro", "numpy", "opencv-python", "torch", "onnx", "onnxruntime", "av", "qdrant-edge-py",
    "trackers", "supervision",
)  # fmt: skip


def environment() -> dict[str, Any]:
    """Return the machine, the commit of the checkout and the versions that are installed."""
    return {
        "device": f"{cpu_name()}, {os.cpu_count()} cores",
        "platform": platform.platform(),
        "python": platform.python_version(),
        "commit": commit(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def cpu_name() -> str:
    """Return the processor's name as the kernel gives it, else the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def commit() -> str | None:
    """Return the checkout's commit, with ``-dirty`` when files differ; None outside of one."""
    answer = _git("describe", "--always", "--dirty")
    return answer.strip() if answer else None


def uncommitted() -> str:
    """Return how tracked files differ from the checkout's commit, as a patch; empty if not."""
    return _git("diff", "HEAD") or ""


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
