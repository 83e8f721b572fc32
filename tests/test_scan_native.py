"""The compiled scan: torch operator and ONNX Runtime operator, driven by the one list of cases."""

import contextlib
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from mambapro import native
from mambapro.contract import OP_DOMAIN, OP_NAME
from mambapro.ops import selective_scan as module
from mambapro.ops.selective_scan import selective_scan, selective_scan_reference
from runtime.engines import OnnxEngine
from tests.export_samples import exported, triplets
from tests.native.build import require
from tests.scan_cases import ScanCase, oracle, scan_cases
from tests.test_export_scan import NAMES, feed, scan_model
from tests.test_selective_scan import as_torch, close
from tests.tolerances import (
    SCAN_FLOAT16,
    SCAN_FLOAT32,
    SCAN_GRADIENT_FLOAT32,
    SCAN_PATHS,
)

ROOT = Path(__file__).parents[1]
SINGLE = [case for case in scan_cases() if not case.half]


@pytest.fixture
def operators():
    """The torch operators of plugins/torch."""
    path = native.find_library("torch")
    require(path, "native library for torch (make build)")
    loaded = module._load_native(path)
    assert loaded is not None
    return loaded


@pytest.fixture
def library() -> Path:
    """The custom-op library of plugins/onnxruntime."""
    path = native.find_library("onnxruntime")
    require(path, "native library for ONNX Runtime (make build)")
    return path


# --- PyTorch -------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", SINGLE, ids=str)
def test_torch_operator_matches_the_oracle(operators, case):
    y = operators.scan_forward(*as_torch(case))
    close(y.numpy(), oracle(*case.inputs()), SCAN_FLOAT32)


@pytest.mark.parametrize("case", SINGLE, ids=str)
def test_torch_gradients_match_the_reference_in_float64(operators, case):
    inputs, exact = as_torch(case, grad=True), as_torch(case, torch.float64, grad=True)
    weight = torch.linspace(-1, 1, exact[0].numel(), dtype=torch.float64).view_as(exact[0])
    (selective_scan(*inputs) * weight).sum().backward()
    (selective_scan_reference(*exact) * weight).sum().backward()
    for single, double in zip(inputs, exact, strict=True):
        assert single.grad.dtype == torch.float32
        close(single.grad.numpy(), double.grad.numpy(), SCAN_GRADIENT_FLOAT32)


def test_selective_scan_takes_the_native_path_when_it_is_there(operators, monkeypatch):
    inputs = as_torch(ScanCase("plain"))
    y = selective_scan(*inputs)
    assert torch.equal(y, operators.scan_forward(*inputs))
    monkeypatch.setenv(native.SWITCH, "off")
    portable = selective_scan(*inputs)
    assert torch.equal(portable, module._scan_portable(*inputs))
    assert not torch.equal(portable, y)  # another order of sums


def test_other_types_and_many_states_take_the_portable_path(operators):
    for dtype in (torch.float64, torch.float16):
        u = torch.zeros(1, 2, 3, dtype=dtype)
        assert module._native(u, torch.zeros(1, 3, 4)) is None
    case = ScanCase("many_states", batch=1, length=3, channels=5, states=module.MAX_STATES + 1)
    assert module._native(*(as_torch(case)[i] for i in (0, 2))) is None
    close(selective_scan(*as_torch(case)).numpy(), oracle(*case.inputs()), SCAN_FLOAT32)


def test_torch_operator_walks_strides(operators):
    inputs = as_torch(ScanCase("strided", batch=3, channels=40))
    expected = operators.scan_forward(*inputs)
    wide = torch.cat([inputs[0], inputs[0]], dim=2)[..., :40]  # steps lie apart
    rows = inputs[1].expand(2, *inputs[1].shape)[1]
    turned = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs[2:]]
    assert not wide.is_contiguous()
    assert torch.equal(operators.scan_forward(wide, rows, *turned), expected)


def test_gradient_of_a_sum_has_no_strides(operators):
    """The gradient of sum() is one number expanded to the shape of y."""
    inputs, dense = (as_torch(ScanCase("expanded"), grad=True) for _ in range(2))
    selective_scan(*inputs).sum().backward()
    (selective_scan(*dense) * torch.ones(dense[0].shape)).sum().backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(inputs, dense, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_torch_operator_reads_nothing_of_a_wrong_shape(operators, name):
    """Even when it is called without the check of mambapro/ops."""
    inputs = as_torch(ScanCase("bad", groups=2, batch=3))
    index = NAMES.index(name)
    for wrong in (inputs[index][..., :-1], inputs[index].double(), inputs[index][0]):
        bad = [*inputs[:index], wrong, *inputs[index + 1 :]]
        with pytest.raises(ValueError, match=r"must be .* got"):
            operators.scan_forward(*bad)
        with pytest.raises(ValueError, match=r"must be .* got"):
            operators.scan_backward(inputs[0], *bad)
    with pytest.raises(ValueError, match="grad_y must be"):
        operators.scan_backward(inputs[0][:, 1:], *inputs)


def test_torch_operator_refuses_empty_and_odd_groups(operators):
    inputs = as_torch(ScanCase("bad", groups=2, batch=3))
    with pytest.raises(ValueError, match="no size of the scan may be zero"):
        operators.scan_forward(
            *(x[:, :0] if i in (0, 1, 3, 4) else x for i, x in enumerate(inputs))
        )
    with pytest.raises(ValueError, match="groups of A must divide"):
        operators.scan_forward(*(x[:5] if i in (0, 1, 3, 4) else x for i, x in enumerate(inputs)))


def test_nan_stays_in_its_channel(operators):
    inputs = as_torch(ScanCase("nan", batch=1, length=9, channels=20))
    inputs[1][0, 4, 7] = torch.nan
    bad = torch.isnan(operators.scan_forward(*inputs))[0]
    assert bad[4:, 7].all()
    assert bad.sum() == 5


def test_mamba_ssm_is_called_as_it_documents(monkeypatch):
    """On CUDA; here its signature is played by the reference, one group after the other."""
    calls = []

    def selective_scan_fn(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
        calls.append(u.shape)
        assert delta_softplus
        assert z is None
        turned = [x.transpose(1, 2) for x in (u, delta, B, C)]
        y = selective_scan_reference(*turned[:2], A[None], *turned[2:], D[None], delta_bias[None])
        return y.transpose(1, 2)

    case = ScanCase("fused", groups=3)
    monkeypatch.setattr(module, "_fused", lambda u, A: selective_scan_fn)
    monkeypatch.setattr(module, "_native", lambda u, A: None)
    inputs, exact = (as_torch(case, torch.float64, grad=True) for _ in range(2))
    selective_scan(*inputs).square().sum().backward()
    selective_scan_reference(*exact).square().sum().backward()
    assert calls[:3] == [(2, 10, 7)] * 3
    for a, b in zip(inputs, exact, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_our_cuda_kernel_is_called_with_the_stream(monkeypatch):
    """On CUDA; here the reference plays the kernel. Gradients are the portable ones."""
    streams = []

    def scan_forward_cuda(*arguments):
        *inputs, stream = arguments
        streams.append(stream)
        return selective_scan_reference(*inputs)

    @contextlib.contextmanager
    def device(wanted):
        assert wanted == torch.device("cpu")
        yield

    stream = types.SimpleNamespace(cuda_stream=1234)
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(module, "_native", lambda u, A: None)
    monkeypatch.setattr(module, "_native_cuda", lambda u, A: scan_forward_cuda)
    inputs, exact = (as_torch(ScanCase("cuda", groups=3), torch.float64, grad=True) for _ in "ab")
    selective_scan(*inputs).square().sum().backward()
    selective_scan_reference(*exact).square().sum().backward()
    assert streams == [1234]
    for a, b in zip(inputs, exact, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_our_cuda_kernel_is_taken_for_what_it_can_scan(monkeypatch):
    kernel = object()
    library = types.SimpleNamespace(scan_forward_cuda=kernel)
    monkeypatch.setattr(module, "_load_native", lambda path: library)
    module._load_cuda.cache_clear()

    def taken(device="cuda", dtype=torch.float32, states=16, decay=torch.float32):
        u = types.SimpleNamespace(device=torch.device(device), dtype=dtype)
        return module._native_cuda(u, types.SimpleNamespace(dtype=decay, shape=(1, 2, states)))

    try:
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            assert taken(dtype=dtype) is kernel
        assert taken("cpu") is taken(dtype=torch.float64) is taken(decay=torch.float64) is None
        assert taken(states=module.MAX_CUDA_STATES + 1) is None
        module._load_cuda.cache_clear()
        monkeypatch.setattr(module, "_load_native", lambda path: None)  # nothing is built
        assert taken() is None
        module._load_cuda.cache_clear()
        monkeypatch.setattr(
            module, "_load_native", lambda path: types.SimpleNamespace()
        )  # CPU only
        assert taken() is None
    finally:
        module._load_cuda.cache_clear()


# --- ONNX Runtime --------------------------------------------------------------------------------


def session(
    model: onnx.ModelProto, library: Path, optimised: Path | None = None
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.register_custom_ops_library(str(library))
    if optimised:
        options.optimized_model_filepath = str(optimised)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


@pytest.mark.parametrize("case", scan_cases(), ids=str)
def test_onnxruntime_operator_matches_the_oracle(library, case, tmp_path):
    model = scan_model(case.half)
    (y,) = session(model, library, tmp_path / "optimised.onnx").run(None, feed(case))
    assert y.dtype == (np.float16 if case.half else np.float32)
    expected = oracle(*case.inputs())
    tolerance = SCAN_FLOAT16 if case.half else SCAN_FLOAT32
    np.testing.assert_allclose(y, expected, rtol=0, atol=tolerance * np.abs(expected).max())
    ran = onnx.load(tmp_path / "optimised.onnx").graph.node
    assert [(node.domain, node.op_type) for node in ran] == [(OP_DOMAIN, OP_NAME)]


WRONG_SHAPES = [
    ("u", lambda x: x[0], "u must be (G*B, L, D) and A (G, D, N), got (7, 10)"),
    ("delta", lambda x: x[:, 1:], "delta must be (6, 7, 10), got (6, 6, 10)"),
    (
        "A",
        lambda x: x[..., None],
        "u must be (G*B, L, D) and A (G, D, N), got (6, 7, 10) and (2, 10, 16, 1)",
    ),
    ("A", lambda x: x[:, 1:], "A must be (2, 10, 16), got (2, 9, 16)"),
    ("B", lambda x: x[..., 1:], "B must be (6, 7, 16), got (6, 7, 15)"),
    ("C", lambda x: x[1:], "C must be (6, 7, 16), got (5, 7, 16)"),
    ("D", lambda x: x[0], "D must be (2, 10), got (10)"),
    ("delta_bias", lambda x: x[:, 1:], "delta_bias must be (2, 10), got (2, 9)"),
]


def any_shape(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the declared shapes, so that the operator itself meets what it is fed."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.ClearField("shape")
    return model


@pytest.mark.parametrize(("name", "change", "message"), WRONG_SHAPES)
def test_onnxruntime_operator_names_the_input(library, name, change, message):
    inputs = feed(ScanCase("bad", groups=2, batch=3))
    inputs[name] = np.ascontiguousarray(change(inputs[name]))
    with pytest.raises(Exception, match="SelectiveScan") as raised:
        session(any_shape(scan_model(half=False)), library).run(None, inputs)
    assert message in str(raised.value)


def test_onnxruntime_operator_refuses_empty_and_odd_groups(library):
    runs = session(any_shape(scan_model(half=False)), library)
    inputs = feed(ScanCase("bad", groups=2, batch=3))
    carried = ("u", "delta", "B", "C")
    with pytest.raises(Exception, match="no size of the scan may be zero"):
        runs.run(None, {k: v[:, :0] if k in carried else v for k, v in inputs.items()})
    with pytest.raises(Exception, match="groups of A must divide"):
        runs.run(None, {k: v[:5] if k in carried else v for k, v in inputs.items()})
    with pytest.raises(Exception, match="at most 256 states"):
        runs.run(None, feed(ScanCase("many", batch=1, length=2, channels=2, states=257)))


def test_onnxruntime_refuses_mixed_types(library):
    model = scan_model(half=False)
    (delta,) = (value for value in model.graph.input if value.name == "delta")
    delta.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    with pytest.raises(Exception, match="SelectiveScan"):
        session(model, library)


def test_exported_network_embeds_the_same_with_and_without_the_library(library, tmp_path):
    path = exported()[0].path
    inputs = triplets(5)
    with_operator = OnnxEngine(path, threads=1).embed(*inputs)
    with_loop = OnnxEngine(path, threads=1, native_scan=False).embed(*inputs)
    np.testing.assert_allclose(with_operator, with_loop, rtol=0, atol=SCAN_PATHS)
    assert not np.array_equal(with_operator, with_loop)

    session(onnx.load(path), library, tmp_path / "operator.onnx")
    ran = [node.op_type for node in onnx.load(tmp_path / "operator.onnx").graph.node]
    assert ran.count(OP_NAME) == 4  # intra and inter scans of two blocks
    assert "Scan" not in ran
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loop.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    ran = [node.op_type for node in onnx.load(tmp_path / "loop.onnx").graph.node]
    assert OP_NAME not in ran
    assert "Scan" in ran


# --- instruction sets ----------------------------------------------------------------------------

ONE_SET = """
import torch
from mambapro import native
from mambapro.ops import selective_scan as module
from tests.scan_cases import oracle, scan_cases
from tests.test_selective_scan import as_torch, close
operators = module._load_native(native.require_library("torch"))
for case in scan_cases():
    if not case.half:
        close(operators.scan_forward(*as_torch(case)).numpy(), oracle(*case.inputs()), 2e-5)
print(operators.instruction_set())
"""


@pytest.mark.parametrize("name", ["plain", "avx2", "avx512"])
def test_each_instruction_set(operators, name):
    supported = ("plain", "avx2", "avx512")
    best = operators.instruction_set()
    if best not in supported or supported.index(name) > supported.index(best):
        pytest.skip(f"this machine runs {best}, not {name}")
    done = subprocess.run(
        [sys.executable, "-c", ONE_SET],
        cwd=ROOT,
        env={**os.environ, "MAMBAPRO_SIMD": name, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == name
