import numpy as np
import pytest
import torch
from mambapy.mamba import MambaBlock, MambaConfig

from mambapro.ops import selective_scan as module
from mambapro.ops.selective_scan import selective_scan, selective_scan_reference
from tests.scan_cases import ScanCase, oracle, scan_cases
from tests.tolerances import SCAN_FLOAT16, SCAN_FLOAT32, SCAN_GRADIENT

CARRIED = (0, 1, 3, 4)  # u, delta, B, C are of the operator's type T; A, D, delta_bias of float32


def as_torch(case: ScanCase, dtype=torch.float32, grad=False) -> list[torch.Tensor]:
    tensors = []
    for index, array in enumerate(case.inputs()):
        kind = torch.float16 if case.half and index in CARRIED else dtype
        tensors.append(torch.tensor(array, dtype=kind, requires_grad=grad))
    return tensors


def close(actual, expected, tolerance):
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


@pytest.fixture
def portable(monkeypatch):
    """Take the portable path even where native code is built."""
    monkeypatch.setenv("MAMBAPRO_NATIVE", "off")


@pytest.mark.usefixtures("portable")
@pytest.mark.parametrize("scan", [selective_scan, selective_scan_reference])
@pytest.mark.parametrize("case", scan_cases(), ids=str)
def test_matches_float64_oracle(scan, case):
    y = scan(*as_torch(case))
    assert y.dtype == (torch.float16 if case.half else torch.float32)
    close(y.double().numpy(), oracle(*case.inputs()), SCAN_FLOAT16 if case.half else SCAN_FLOAT32)


@pytest.mark.parametrize("case", [c for c in scan_cases() if not c.half], ids=str)
def test_matches_mambapy(case):
    block = MambaBlock(MambaConfig(d_model=case.channels, n_layers=1, expand_factor=1))
    block.config.d_state = case.states
    u, delta, A, B, C, D, bias = as_torch(case)
    y = selective_scan(u, delta, A, B, C, D, bias).unflatten(0, (case.groups, -1))
    rows = [x.unflatten(0, (case.groups, -1)) for x in (u, delta, B, C)]
    for g in range(case.groups):
        step = torch.nn.functional.softplus(rows[1][g] + bias[g])
        for theirs in (block.selective_scan, block.selective_scan_seq):
            expected = theirs(rows[0][g], step, A[g], rows[2][g], rows[3][g], D[g])
            close(y[g].numpy(), expected.detach().numpy(), SCAN_FLOAT32)


@pytest.mark.parametrize("case", [c for c in scan_cases() if not c.half], ids=str)
def test_gradients_match_the_reference(case):
    fast, slow = (as_torch(case, torch.float64, grad=True) for _ in range(2))
    weight = torch.linspace(-1, 1, fast[0].numel(), dtype=torch.float64).view_as(fast[0])
    (selective_scan(*fast) * weight).sum().backward()
    (selective_scan_reference(*slow) * weight).sum().backward()
    for a, b in zip(fast, slow, strict=True):
        close(a.grad.numpy(), b.grad.numpy(), SCAN_GRADIENT)


def test_gradcheck():
    case = ScanCase("gradcheck", groups=2, batch=2, length=5, channels=3, states=4)
    assert torch.autograd.gradcheck(selective_scan, as_torch(case, torch.float64, grad=True))


@pytest.mark.parametrize("chunk_bytes", [1, 40_000])
def test_chunks_do_not_change_the_result(monkeypatch, chunk_bytes):
    inputs = as_torch(ScanCase("chunks", groups=3, batch=5), torch.float64)
    whole = selective_scan(*inputs)
    monkeypatch.setattr(module, "STATE_BYTES", chunk_bytes)
    torch.testing.assert_close(selective_scan(*inputs), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("half", [False, True])
def test_opcheck(half):
    case = ScanCase("opcheck", groups=3, half=half)
    torch.library.opcheck(selective_scan, as_torch(case, grad=True))


def test_takes_strided_inputs():
    inputs = as_torch(ScanCase("strided", batch=3))
    strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    assert not strided[0].is_contiguous()
    torch.testing.assert_close(selective_scan(*strided), selective_scan(*inputs))


@pytest.mark.parametrize(
    ("argument", "change", "message"),
    [
        (0, lambda x: x[0], "u must be"),
        (0, lambda x: x[:, :0], "zero"),
        (0, lambda x: x[:5], "groups of A must divide"),
        (1, lambda x: x[:, :-1], "delta must be"),
        (2, lambda x: x.half(), "A must be float32"),
        (3, lambda x: x[..., :-1], "B must be"),
        (4, lambda x: x.double(), "C must be"),
        (5, lambda x: x[0], "D must be"),
        (6, lambda x: x.double(), "delta_bias must be"),
    ],
)
@pytest.mark.parametrize("scan", [selective_scan, selective_scan_reference])
def test_bad_input_names_the_argument(scan, argument, change, message):
    inputs = as_torch(ScanCase("bad", groups=2, batch=3))
    inputs[argument] = change(inputs[argument])
    with pytest.raises(ValueError, match=message):
        scan(*inputs)


def test_cases_are_distinct():
    names = [case.name for case in scan_cases()]
    assert len(set(names)) == len(names)
