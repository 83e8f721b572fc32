"""nvcc compiles the CUDA scan for every architecture; its report is held against the design."""

import os
import re
import shutil
import subprocess
from collections import Counter

import numpy as np
import pytest

from mambapro import native
from tests.native.build import CORE, ROOT, require
from tests.scan_cases import ScanCase, oracle
from tests.test_export_scan import feed, scan_model
from tests.test_scan_native import session
from tests.tolerances import SCAN_FLOAT32

ARCHITECTURES = (75, 86, 87, 89, 100, 110, 120)
VARIANTS = ("ILi4ELi32ELb0E", "ILi8ELi8ELb0E", "ILi8ELi8ELb1E")  # lanes, channels, kMany
TYPES = ("f", "6__half", "13__nv_bfloat16")
MAX_REGISTERS = 80  # docs/decisions/0010-cuda-scan.md: 6 blocks of 128 threads a multiprocessor
REPORT = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<sm>\d+)a?'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def find_nvcc() -> str | None:
    nvcc = shutil.which(os.environ.get("CUDACXX", "nvcc"))
    require(nvcc, "nvcc", "MAMBAPRO_REQUIRE_NVCC=1")
    return nvcc


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> list[dict[str, str]]:
    nvcc = find_nvcc()
    output = tmp_path_factory.mktemp("cuda") / "scan_cuda.o"
    targets = [f"-gencode=arch=compute_{sm},code=sm_{sm}" for sm in ARCHITECTURES]
    warnings = ["-Werror=all-warnings", "-Xcompiler=-Wall,-Wextra,-Werror"]
    ptxas = "-Xptxas=-v,-warn-spills,-warn-lmem-usage,-Werror"
    source = CORE / "scan_cuda.cu"
    done = subprocess.run(
        [nvcc, "-std=c++17", "-O3", *targets, *warnings, ptxas, "-c", source, "-o", output],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [match.groupdict() for match in REPORT.finditer(done.stderr)]


@pytest.mark.slow
def test_every_kernel_is_compiled_for_every_architecture(report):
    assert Counter(int(kernel["sm"]) for kernel in report) == dict.fromkeys(
        ARCHITECTURES, len(VARIANTS) * len(TYPES)
    )
    names = {kernel["name"] for kernel in report}
    for variant in VARIANTS:
        for kind in TYPES:
            mangled = variant.replace("I", f"I{kind}", 1)
            assert any(f"ScanKernel{mangled}" in name for name in names), mangled


@pytest.mark.slow
def test_no_spills_and_few_registers(report):
    for kernel in report:
        assert {kernel["stack"], kernel["stores"], kernel["loads"]} == {"0"}, kernel
        assert int(kernel["registers"]) <= MAX_REGISTERS, kernel
        # All shared memory is dynamic; scan_cuda.cu asserts that it fits.
        assert "smem" not in kernel["rest"], kernel
    for sm in ARCHITECTURES:
        most = max(int(k["registers"]) for k in report if k["sm"] == str(sm))
        print(f"sm_{sm}: at most {most} registers, no spills")


@pytest.mark.slow
def test_the_cuda_preset_builds_all_libraries(tmp_path):
    """The one for ONNX Runtime has both providers' kernels, and a session on the CPU runs one."""
    find_nvcc()
    require(shutil.which("cmake"), "cmake")
    one = ["-DMAMBAPRO_CUDA_ARCHITECTURES=87", "-DMAMBAPRO_BUILD_TENSORRT=ON"]
    rest = ["-DMAMBAPRO_BUILD_TORCH=OFF", "-DMAMBAPRO_BUILD_TESTS=OFF"]
    for command in (
        ["cmake", "--preset", "cuda", "-B", tmp_path, *one, *rest],
        ["cmake", "--build", tmp_path, "--parallel", "2"],
    ):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "lib" / "libmambapro_tensorrt.so").is_file()
    library = tmp_path / "lib" / "libmambapro_onnxruntime.so"
    assert native.providers(library) == ("CPUExecutionProvider", "CUDAExecutionProvider")
    case = ScanCase("plain")
    (y,) = session(scan_model(half=False), library).run(None, feed(case))
    expected = oracle(*case.inputs())
    np.testing.assert_allclose(y, expected, rtol=0, atol=SCAN_FLOAT32 * np.abs(expected).max())
