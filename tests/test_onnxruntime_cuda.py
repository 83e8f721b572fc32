"""The operator of ONNX Runtime's CUDA provider, over the emulated CUDA runtime.

ONNX Runtime itself checks, feeds and runs it, as an operator of its CPU provider: see
tests/native/onnxruntime_cuda_on_cpu.cc.
"""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest

from mambapro import native
from mambapro.contract import OP_DOMAIN, OP_NAME
from runtime.engines import OnnxEngine
from tests.export_samples import exported, triplets
from tests.native.build import ROOT, require
from tests.scan_cases import ScanCase, oracle, scan_cases
from tests.test_export_scan import feed, scan_model
from tests.test_scan_native import WRONG_SHAPES, any_shape, session
from tests.tolerances import SCAN_FLOAT16, SCAN_FLOAT32, SCAN_PATHS

TARGET = "onnxruntime_cuda_on_cpu"
INVALID_CONFIGURATION = 9  # cudaErrorInvalidConfiguration


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    require(shutil.which("cmake") and shutil.which("c++"), "cmake and C++ compiler")
    build = tmp_path_factory.mktemp("cuda_on_cpu")
    parts = {"TORCH": "OFF", "ONNXRUNTIME": "ON", "TESTS": "ON"}
    options = [f"-DMAMBAPRO_BUILD_{part}={wish}" for part, wish in parts.items()]
    for command in (
        ["cmake", "--preset", "cpu", "-B", build, *options],
        ["cmake", "--build", build, "--parallel", "2", "--target", TARGET],
    ):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "tests" / "native" / TARGET / "libmambapro_onnxruntime.so"


@pytest.mark.parametrize("case", scan_cases(), ids=str)
def test_matches_the_oracle_on_the_stream_of_the_session(library, case, tmp_path):
    model = scan_model(case.half)
    (y,) = session(model, library, tmp_path / "optimised.onnx").run(None, feed(case))
    assert y.dtype == (np.float16 if case.half else np.float32)
    expected = oracle(*case.inputs())
    tolerance = SCAN_FLOAT16 if case.half else SCAN_FLOAT32
    np.testing.assert_allclose(y, expected, rtol=0, atol=tolerance * np.abs(expected).max())
    assert ctypes.CDLL(str(library)).LaunchedOnTheStream()
    ran = onnx.load(tmp_path / "optimised.onnx").graph.node
    assert [(node.domain, node.op_type) for node in ran] == [(OP_DOMAIN, OP_NAME)]


@pytest.mark.parametrize(("name", "change", "message"), WRONG_SHAPES)
def test_names_the_input(library, name, change, message):
    inputs = feed(ScanCase("bad", groups=2, batch=3))
    inputs[name] = np.ascontiguousarray(change(inputs[name]))
    with pytest.raises(Exception, match="SelectiveScan") as raised:
        session(any_shape(scan_model(half=False)), library).run(None, inputs)
    assert message in str(raised.value)


def test_refuses_empty_odd_groups_and_many_states(library):
    runs = session(any_shape(scan_model(half=False)), library)
    inputs = feed(ScanCase("bad", groups=2, batch=3))
    carried = ("u", "delta", "B", "C")
    with pytest.raises(Exception, match=r"no size of the scan may be zero, got u \(6, 0, 10\)"):
        runs.run(None, {k: v[:, :0] if k in carried else v for k, v in inputs.items()})
    with pytest.raises(Exception, match="groups of A must divide"):
        runs.run(None, {k: v[:5] if k in carried else v for k, v in inputs.items()})
    with pytest.raises(Exception, match=r"at most 1024 states, got .* A \(1, 2, 1025\)"):
        runs.run(None, feed(ScanCase("many", batch=1, length=2, channels=2, states=1025)))


def test_a_failed_launch_fails_the_run(library):
    runs, inputs = session(scan_model(half=False), library), feed(ScanCase("plain"))
    emulated = ctypes.CDLL(str(library))
    emulated.SetLaunchError(INVALID_CONFIGURATION)
    try:
        with pytest.raises(Exception, match="SelectiveScan: CUDA error 9 at the launch: an error"):
            runs.run(None, inputs)
    finally:
        emulated.SetLaunchError(0)
    runs.run(None, inputs)


def test_exported_network_embeds_the_same(library, monkeypatch):
    inputs = triplets(3)
    loop = OnnxEngine(exported()[0].path, threads=1, native_scan=False).embed(*inputs)
    monkeypatch.setenv(native.FOLDER, str(library.parent))
    kernel = OnnxEngine(exported()[0].path, threads=1).embed(*inputs)
    np.testing.assert_allclose(kernel, loop, rtol=0, atol=SCAN_PATHS)
    assert not np.array_equal(kernel, loop)


def test_library_says_which_providers_it_serves(library):
    assert native.providers(library) == ("CPUExecutionProvider", "CUDAExecutionProvider")
