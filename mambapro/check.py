"""What can this machine do? ``python -m mambapro.check`` tells, with the fix for what is missing.

Standard library only, so that it runs where an installation went wrong; everything else is tried.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import os
import platform
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from mambapro import native
from mambapro.cli import MissingError, add_common_arguments, print_json_line, run
from mambapro.contract import EXIT_DONE

LEAST_PYTHON: Final = (3, 10)
LEAST_TENSORRT: Final = (10, 3)
CODECS: Final = ("h264", "hevc", "mjpeg")
"""What cameras send."""
TEGRA_RELEASE: Final = Path("/etc/nv_tegra_release")
VIDEO: Final = Path("/sys/class/video4linux")

_JETPACKS: Final = {
    "36.4.0": "6.1", "36.4.3": "6.2", "36.4.4": "6.2.1",
    "36.5": "6.2.2", "38.2": "7.0", "38.4": "7.1",
}  # fmt: skip
"""Jetson Linux -> JetPack; others are shown by the version of Jetson Linux alone."""
_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR."""


@dataclass(frozen=True)
class Finding:
    """One row of the table."""

    name: str
    """What was looked for, and what ``--require`` calls it."""
    present: bool
    found: str
    """Version and details; what was tried if it is missing."""
    fix: str = ""
    """What to do; empty where nothing is missing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; MissingError when something required is not there."""
    arguments = parse(argv)
    findings = look()
    print(table(findings))
    if arguments.json:
        print_json_line({finding.name: asdict(finding) for finding in findings})
    lacking = [f for f in findings if f.name in arguments.require and not f.present]
    if lacking:
        reasons = "; ".join(f"{f.name}: {f.found}; {f.fix}" for f in lacking)
        raise MissingError(f"required, but not here: {reasons}")
    return EXIT_DONE


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m mambapro.check",
        description="Show what this machine can do, and the fix for what is missing.",
    )
    parser.add_argument(
        "--require",
        nargs="+",
        choices=tuple(LOOKS),
        default=(),
        metavar="NAME",
        help=f"exit with 3 when one of these is missing: {', '.join(LOOKS)} (default: none)",
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def look() -> list[Finding]:
    """Return a finding for each part; one that cannot even be looked for counts as missing."""
    return [_guarded(name, seek) for name, seek in LOOKS.items()]


def table(findings: Sequence[Finding]) -> str:
    """Return the findings as lines of text, the fix below what is missing."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        mark = "yes" if finding.present else "no "
        lines.append(f"{finding.name:<{width}}  {mark}  {finding.found}")
        if finding.fix:
            lines.append(f"{'':<{width}}       -> {finding.fix}")
    return "\n".join(lines)


def look_for_python() -> Finding:
    """The interpreter itself."""
    fix = "" if sys.version_info >= LEAST_PYTHON else "install Python 3.10 or later"
    found = f"{platform.python_version()}, {platform.machine()}, {sys.executable}"
    return Finding("python", not fix, found, fix)


def look_for_torch() -> Finding:
    """Only its version: a camera box has none, and importing it takes seconds."""
    return _package("torch", "torch", "train", "needed to train and to export, not to run")


def look_for_opencv() -> Finding:
    """OpenCV, and whether it reads through GStreamer (CSI cameras, hardware decoding)."""
    cv2 = importlib.import_module("cv2")
    gstreamer = re.search(r"GStreamer:\s*(\w+)", cv2.getBuildInformation())
    with_it = gstreamer is not None and gstreamer.group(1) == "YES"
    return Finding("opencv", True, f"{cv2.__version__}, GStreamer: {'yes' if with_it else 'no'}")


def look_for_onnxruntime() -> Finding:
    """ONNX Runtime and its execution providers."""
    onnxruntime = importlib.import_module("onnxruntime")
    names = ", ".join(onnxruntime.get_available_providers())
    return Finding("onnxruntime", True, f"{onnxruntime.__version__}: {names}")


def look_for_onnx() -> Finding:
    """Needed to build engines, and by ONNX Runtime's TensorRT provider."""
    return _package("onnx", "onnx", "export", "needed to export and to build engines")


def look_for_codecs() -> Finding:
    """PyAV's decoders of what cameras send."""
    av = importlib.import_module("av")
    able = [name for name in CODECS if _decodes(av, name)]
    found = f"PyAV {av.__version__}, decodes {', '.join(able) or 'none of ' + ', '.join(CODECS)}"
    fix = "" if len(able) == len(CODECS) else "install a complete build: pip install --upgrade av"
    return Finding("codecs", not fix, found, fix)


def look_for_gpu() -> Finding:
    """The CUDA driver and its GPUs, asked without any package."""
    fix = "install NVIDIA's driver (on a Jetson, JetPack); in a container: --runtime nvidia"
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return Finding("gpu", False, f"no CUDA driver: {error}", fix)
    started = driver.cuInit(0)
    count, version = ctypes.c_int(), ctypes.c_int()
    if started != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return Finding("gpu", False, f"the driver has no GPU (cuInit returned {started})", fix)
    driver.cuDriverGetVersion(ctypes.byref(version))
    cuda = f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"
    names = [_gpu_name(driver, index) for index in range(count.value)]
    return Finding("gpu", True, f"{', '.join(names)}; driver for {cuda}")


def look_for_tensorrt() -> Finding:
    """TensorRT's Python package."""
    tensorrt = importlib.import_module("tensorrt")
    version = str(tensorrt.__version__)
    numbers = tuple(int(part) for part in version.split(".")[:2])
    fix = "" if numbers >= LEAST_TENSORRT else "install TensorRT 10.3 or later"
    return Finding("tensorrt", not fix, version, fix)


def look_for_pycuda() -> Finding:
    """What runs engines."""
    version = _version("pycuda")
    fix = FIXES["pycuda"] if version is None else ""
    return Finding("pycuda", version is not None, version or "not installed", fix)


def look_for_scan() -> Finding:
    """The native selective scan for ONNX Runtime."""
    library = native.require_library("onnxruntime")
    return Finding("scan", True, f"{library}: {', '.join(native.providers(library))}")


def look_for_plugin() -> Finding:
    """The native selective scan for TensorRT; that it loads, not that it runs."""
    library = native.require_library("tensorrt")
    ctypes.CDLL(str(library))
    return Finding("plugin", True, str(library))


def look_for_jetpack() -> Finding:
    """Jetson Linux, and the JetPack that it belongs to."""
    if not TEGRA_RELEASE.is_file():
        return Finding("jetpack", False, "not a Jetson")
    text = TEGRA_RELEASE.read_text(encoding="utf-8")
    release = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text)
    if release is None:
        return Finding("jetpack", True, f"unknown release: {text.splitlines()[0]}")
    linux = ".".join(release.groups())
    known = [jetpack for prefix, jetpack in _JETPACKS.items() if linux.startswith(prefix)]
    jetpack = f", JetPack {known[-1]}" if known else ""
    return Finding("jetpack", True, f"Jetson Linux {linux}{jetpack}")


def look_for_cameras() -> Finding:
    """V4L2 devices; cameras on the network need none."""
    devices = sorted(VIDEO.iterdir()) if VIDEO.is_dir() else []
    if not devices:
        return Finding("cameras", False, f"no V4L2 camera in {VIDEO}", FIXES["cameras"])
    names = ", ".join(f"/dev/{d.name} ({_text(d / 'name')})" for d in devices)
    closed = [d.name for d in devices if not os.access(f"/dev/{d.name}", os.R_OK | os.W_OK)]
    fix = "sudo usermod --append --groups video $USER, then log in again" if closed else ""
    return Finding("cameras", not closed, names, fix)


LOOKS: Final[dict[str, Callable[[], Finding]]] = {
    "python": look_for_python,
    "torch": look_for_torch,
    "opencv": look_for_opencv,
    "onnx": look_for_onnx,
    "onnxruntime": look_for_onnxruntime,
    "scan": look_for_scan,
    "codecs": look_for_codecs,
    "cameras": look_for_cameras,
    "gpu": look_for_gpu,
    "tensorrt": look_for_tensorrt,
    "pycuda": look_for_pycuda,
    "plugin": look_for_plugin,
    "jetpack": look_for_jetpack,
}

FIXES: Final = {
    "opencv": "pip install opencv-python, or JetPack's own python3-opencv",
    "onnxruntime": "pip install onnxruntime (with a GPU: onnxruntime-gpu)",
    "scan": native.ADVICE,
    "codecs": "pip install av",
    "cameras": "connect one, or use cameras on the network or clips",
    "tensorrt": "JetPack: sudo apt install python3-libnvinfer, and make the environment with "
    "--system-site-packages; elsewhere: pip install tensorrt",
    "pycuda": "pip install pycuda, on the machine with the GPU",
    "plugin": f"{native.GPU_ADVICE}; see plugins/README.md",
}
"""What to do about each part when looking for it failed."""


def _guarded(name: str, seek: Callable[[], Finding]) -> Finding:
    """Return the finding; whatever goes wrong while looking is the finding."""
    try:
        return seek()
    except Exception as error:  # a broken package may raise anything when it is imported
        return Finding(name, False, " ".join(str(error).split()), FIXES.get(name, ""))


def _package(name: str, package: str, extra: str, purpose: str) -> Finding:
    version = _version(package)
    if version is not None:
        return Finding(name, True, version)
    return Finding(name, False, f"not installed; {purpose}", f"pip install -e '.[{extra}]'")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _decodes(av: object, name: str) -> bool:
    try:
        av.codec.Codec(name, "r")  # type: ignore[attr-defined]
    except Exception:  # PyAV's own error, whose name changed between versions
        return False
    return True


def _gpu_name(driver: ctypes.CDLL, index: int) -> str:
    device, name = ctypes.c_int(), ctypes.create_string_buffer(100)
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, len(name), device)
    numbers = [ctypes.c_int(), ctypes.c_int()]
    for attribute, number in zip((_MAJOR, _MINOR), numbers, strict=True):
        driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
    return f"{name.value.decode()} (compute capability {numbers[0].value}.{numbers[1].value})"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.is_file() else "?"


if __name__ == "__main__":
    sys.exit(run(main))
