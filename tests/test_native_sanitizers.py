"""The native code under the address and undefined-behaviour sanitizers: a fault ends the program.

The plugin for TensorRT runs under them in test_tensorrt_plugin.py, the emulated CUDA kernel under
ThreadSanitizer in test_cuda_races.py.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.native.build import ROOT, require

pytestmark = pytest.mark.timeout(900)  # the build alone takes minutes on busy cores

TARGETS = ("functions_test", "scan_test", "tokens_test", "product_test", "mambapro_onnxruntime",
           "onnxruntime_cuda_on_cpu")  # fmt: skip
CPU = "lib/libmambapro_onnxruntime.so"
CUDA = "tests/native/onnxruntime_cuda_on_cpu/libmambapro_onnxruntime.so"  # over the emulation


def run(*command: object, **changes: str) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    environment = {**os.environ, **changes}
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def build(tmp_path_factory) -> Path:
    require(shutil.which("cmake") and shutil.which("g++"), "cmake and g++")
    folder = tmp_path_factory.mktemp("sanitized")
    done = run("cmake", "--preset", "sanitize", "-B", folder)
    assert done.returncode == 0, done.stderr
    done = run("cmake", "--build", folder, "--parallel", "2", "--target", *TARGETS)
    assert done.returncode == 0, done.stdout
    return folder


@pytest.mark.slow
def test_native_tests_pass(build):
    """Every size, type, stride and instruction set."""
    done = run("ctest", "--test-dir", build, "-L", "cpu", "--output-on-failure")
    assert done.returncode == 0, done.stdout
    assert "100% tests passed, 0 tests failed out of 9" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("library", "count"), [(CPU, 1500), (CUDA, 150)], ids=["cpu", "cuda"])
def test_random_shapes_run_right_or_are_refused(build, library, count):
    # Python itself is not instrumented: the sanitizer must be loaded before it, and leaks are its.
    # libstdc++ comes with it, as it looks for the function that throws when it starts.
    names = ("libasan.so", "libstdc++.so")
    runtimes = " ".join(run("g++", f"-print-file-name={name}").stdout.strip() for name in names)
    options = "detect_leaks=0:detect_stack_use_after_return=0"
    command = [sys.executable, "-m", "tests.fuzz_scan", build / library, count]
    done = run(*command, LD_PRELOAD=runtimes, ASAN_OPTIONS=options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ ran, \d+ refused", done.stdout)
