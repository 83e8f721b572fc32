"""Compile the native tests with the host compiler, for tests that run without CMake."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "plugins" / "core"
NATIVE = ROOT / "tests" / "native"
EMULATION = NATIVE / "emulation"

WARNINGS = ["-Wall", "-Wextra", "-Werror"]
EMULATED = [  # g++ compiles the CUDA sources as C++; it has no "#pragma unroll"
    *WARNINGS,
    "-Wno-unknown-pragmas",
    f"-I{EMULATION}",
    f"-I{NATIVE}",
    f"-I{CORE}",
]
MEMORY_SANITIZERS = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
EMULATED_SCAN = [CORE / "scan_cuda.cu", EMULATION / "emulation.cc"]


def require(present: object, what: str, promise: str = "CI=true") -> None:
    """Skip the test without `what`; fail where the environment variable `promise` is so set."""
    if present:
        return
    variable, value = promise.split("=")
    if os.environ.get(variable) == value:
        pytest.fail(f"{promise} promises {what}")
    pytest.skip(f"no {what}; with {promise} this is a failure")


def compile_cpp(output: Path, sources: Sequence[Path], flags: Sequence[str]) -> Path:
    """Compile C++ sources, and .cu files as C++, to `output`; return it."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    require(compiler, "C++ compiler")
    command = [str(compiler), "-std=c++17", "-g", *flags, "-x", "c++", *map(str, sources)]
    done = subprocess.run([*command, "-o", str(output)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return output
