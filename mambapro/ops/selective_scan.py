"""Selective scan (S6): a clear sequential reference and the ``mambapro::selective_scan`` operator.

Source: Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023,
algorithm 2. With ``delta = softplus(delta + delta_bias)``, per channel and state::

    h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t        y_t = C_t h_t + D u_t

Shapes: u, delta (G*B, L, D), group-major; A (G, D, N), negative; B, C (G*B, L, N); D and
delta_bias (G, D); the result y is (G*B, L, D). u, delta, B, C and y share one type; A, D,
delta_bias and the state are float32 (or float64 throughout, for gradient checks).

``selective_scan`` takes the fastest of these paths that is there: for float32 on the CPU the
native operator of ``plugins/torch``; on CUDA the fused kernel of ``mamba_ssm``, else our own
kernel, whose gradients come from portable code; else portable PyTorch code.
``MAMBAPRO_NATIVE=off`` asks for the portable one everywhere.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from mambapro import native

STATE_BYTES = 4 << 20
"""States of at most this many bytes are held at once: a chunk of the batch that stays in cache."""
MAX_STATES: Final = 256
"""The native operator and mamba_ssm take no more states."""
MAX_CUDA_STATES: Final = 1024
"""Our CUDA kernel takes no more."""

_logger = logging.getLogger(__name__)


def selective_scan_reference(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> Tensor:
    """Scan one step after the other; differentiable and slow. See the module for the shapes."""
    _check(u, delta, A, B, C, D, delta_bias)
    groups, out_type = A.shape[0], u.dtype
    u, delta, B, C = (_by_group(x, groups).to(A.dtype) for x in (u, delta, B, C))  # (G, b, L, *)
    delta = F.softplus(delta + delta_bias[:, None, None])
    state = A.new_zeros(groups, u.shape[1], *A.shape[1:])  # (G, b, D, N)
    outputs = []
    for t in range(u.shape[2]):
        step = delta[:, :, t, :, None]  # (G, b, D, 1)
        drive = step * u[:, :, t, :, None] * B[:, :, t, None, :]
        state = torch.exp(step * A[:, None]) * state + drive
        outputs.append((state * C[:, :, t, None, :]).sum(-1))
    y = torch.stack(outputs, dim=2) + D[:, None, None] * u  # (G, b, L, D)
    return y.flatten(0, 1).to(out_type)


@torch.library.custom_op("mambapro::selective_scan", mutates_args=())
def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> Tensor:
    """Scan on the fastest path that is there; see the module for shapes, types and paths.

    Raises ValueError that names the argument, what it got and what is legal.
    """
    inputs = (u, delta, A, B, C, D, delta_bias)
    _check(*inputs)
    if operator := _native(u, A):
        return operator.scan_forward(*inputs)
    if fused := _fused(u, A):
        return _scan_fused(fused, *inputs)
    if operator := _native_cuda(u, A):
        return _scan_cuda(operator, *inputs)
    return _scan_portable(*inputs)


def _scan_portable(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> Tensor:
    """Compute all exponentials ahead, then walk the sequence."""
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    for group, rows in _chunks(u, A):
        _, states = _states(u[rows], delta[rows], A[group], B[rows], delta_bias[group])
        read = torch.einsum("lbdn,bln->bld", states, C[rows].to(A.dtype))
        y[rows] = (read + D[group] * u[rows].to(A.dtype)).to(u.dtype)
    return y


@torch.library.custom_op("mambapro::selective_scan_backward", mutates_args=())
def selective_scan_backward(
    grad_y: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients for the seven inputs of :func:`selective_scan`; the states are computed again."""
    inputs = (u, delta, A, B, C, D, delta_bias)
    if operator := _native(u, A):
        gradients: tuple[Tensor, ...] = operator.scan_backward(grad_y, *inputs)
        return gradients  # type: ignore[return-value]
    return _backward_portable(grad_y, *inputs)


def _backward_portable(
    grad_y: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    grad_u, grad_delta, grad_B, grad_C = (
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in (u, delta, B, C)
    )
    grad_A, grad_D, grad_bias = (
        torch.zeros_like(x, memory_format=torch.contiguous_format) for x in (A, D, delta_bias)
    )
    for group, rows in _chunks(u, A):
        inputs, gy = u[rows].to(A.dtype), grad_y[rows].to(A.dtype)  # (b, L, D)
        raw = delta[rows].to(A.dtype) + delta_bias[group]
        step = F.softplus(raw)
        decay, states = _states(u[rows], delta[rows], A[group], B[rows], delta_bias[group])
        grad_C[rows] = torch.einsum("lbdn,bld->bln", states, gy).to(C.dtype)
        grad_state = _state_gradients(decay, gy, C[rows].to(A.dtype))  # (L, b, D, N)
        into_input = torch.einsum("lbdn,bln->bld", grad_state, B[rows].to(A.dtype))
        grad_B[rows] = torch.einsum("lbdn,bld->bln", grad_state, step * inputs).to(B.dtype)
        # d loss / d (delta A): what each state owes to its own decay.
        owed = grad_state[1:].mul_(decay[1:]).mul_(states[:-1])
        grad_A[group] += torch.einsum("lbdn,bld->dn", owed, step[:, 1:])
        grad_step = into_input * inputs
        grad_step[:, 1:] += torch.einsum("lbdn,dn->bld", owed, A[group])
        grad_raw = grad_step * torch.sigmoid(raw)
        grad_delta[rows] = grad_raw.to(delta.dtype)
        grad_bias[group] += grad_raw.sum((0, 1))
        grad_u[rows] = (into_input * step + D[group] * gy).to(u.dtype)
        grad_D[group] += (gy * inputs).sum((0, 1))
    return grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_bias


# --- paths that need something built or installed -------------------------------------------------


def _native(u: Tensor, A: Tensor) -> Any | None:
    """Return the operators of plugins/torch if they are built and can scan these tensors."""
    if u.device.type != "cpu" or u.dtype != torch.float32 or A.dtype != torch.float32:
        return None
    if A.shape[2] > MAX_STATES:
        return None
    return _load_native(native.find_library("torch"))


@functools.cache
def _load_native(path: Path | None) -> Any | None:
    """Load the library of plugins/torch and say which path is taken, once."""
    if path is None:
        _logger.info(
            "selective scan: portable path, many times slower; %s", native.missing("torch")
        )
        return None
    try:
        torch.ops.load_library(path)
    except OSError as error:  # built for another torch
        _logger.warning("selective scan: portable path, many times slower; %s", error)
        return None
    operators = torch.ops.mambapro_native
    _logger.info("selective scan: native path (%s), %s", operators.instruction_set(), path)
    return operators


def _native_cuda(u: Tensor, A: Tensor) -> Callable[..., Tensor] | None:
    """Return our CUDA kernel if it is built and can scan these tensors."""
    if u.device.type != "cuda" or A.dtype != torch.float32 or u.dtype == torch.float64:
        return None
    if A.shape[2] > MAX_CUDA_STATES:
        return None
    return _load_cuda(native.find_library("torch"))


@functools.cache
def _load_cuda(path: Path | None) -> Callable[..., Tensor] | None:
    """Return the library's CUDA operator, and say once which path is taken."""
    operator = getattr(_load_native(path), "scan_forward_cuda", None)
    if operator is None:
        _logger.info("selective scan: portable path on CUDA, slow; no CUDA kernel is built")
    else:
        _logger.info("selective scan: our CUDA kernel; gradients from the portable path, slow")
    return operator


def _scan_cuda(operator: Callable[..., Tensor], u: Tensor, *inputs: Tensor) -> Tensor:
    """Queue our kernel on the current stream of the tensors' device."""
    with torch.cuda.device(u.device):
        return operator(u, *inputs, torch.cuda.current_stream().cuda_stream)


def _fused(u: Tensor, A: Tensor) -> Callable[..., Tensor] | None:
    """Return mamba_ssm's fused scan if it is installed and can scan these tensors."""
    if u.device.type != "cuda" or A.dtype != torch.float32 or u.dtype == torch.float64:
        return None
    return _load_fused() if A.shape[2] <= MAX_STATES and native.enabled() else None


@functools.cache
def _load_fused() -> Callable[..., Tensor] | None:
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError as error:
        _logger.info("selective scan: no fused kernel on CUDA; install mamba-ssm (%s)", error)
        return None
    _logger.info("selective scan: mamba_ssm's fused kernel")
    return selective_scan_fn


def _scan_fused(
    fused: Callable[..., Tensor],
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
) -> Tensor:
    """Call mamba_ssm's scan once a group; it wants channels before time: (b, D, L)."""
    groups = A.shape[0]
    outputs = []
    for g, (u_g, delta_g, B_g, C_g) in enumerate(
        zip(*(x.transpose(1, 2).chunk(groups) for x in (u, delta, B, C)), strict=True)
    ):
        y = fused(u_g, delta_g, A[g], B_g, C_g, D[g], None, delta_bias[g], True)
        outputs.append(y.transpose(1, 2))
    return torch.cat(outputs).contiguous()


def _fused_gradients(
    fused: Callable[..., Tensor], grad_y: Tensor, inputs: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Scan again with gradients on: mamba_ssm's own backward kernel does the work."""
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_() for x in inputs]
        return torch.autograd.grad(_scan_fused(fused, *leaves), leaves, grad_y)


# --- the portable path ----------------------------------------------------------------------------


def _states(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, delta_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Return decay and state, both (L, b, D, N): time first, so that a step is contiguous."""
    step = F.softplus(delta.to(A.dtype) + delta_bias).transpose(0, 1)  # (L, b, D)
    decay = torch.exp(step[..., None] * A)
    driven = step * u.to(A.dtype).transpose(0, 1)
    states = driven[..., None] * B.to(A.dtype).transpose(0, 1)[:, :, None, :]
    for t in range(1, states.shape[0]):
        states[t].addcmul_(decay[t], states[t - 1])
    return decay, states


def _state_gradients(decay: Tensor, grad_y: Tensor, C: Tensor) -> Tensor:
    """Carry the gradients (L, b, D, N) of the states from the last step to the first."""
    grads = grad_y.transpose(0, 1)[..., None] * C.transpose(0, 1)[:, :, None, :]
    for t in range(grads.shape[0] - 2, -1, -1):
        grads[t].addcmul_(decay[t + 1], grads[t + 1])
    return grads


def _chunks(u: Tensor, A: Tensor) -> Iterator[tuple[int, slice]]:
    """Yield (group, rows of the batch) so that a chunk's states fit STATE_BYTES."""
    groups, channels, states = A.shape
    per_group = u.shape[0] // groups
    row_bytes = u.shape[1] * channels * states * A.element_size()
    rows = max(1, STATE_BYTES // max(1, row_bytes))
    for group in range(groups):
        for start in range(group * per_group, (group + 1) * per_group, rows):
            yield group, slice(start, min(start + rows, (group + 1) * per_group))


def _by_group(x: Tensor, groups: int) -> Tensor:
    return x.unflatten(0, (groups, x.shape[0] // groups))


def _check(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> None:
    if u.dim() != 3 or A.dim() != 3:
        raise ValueError(
            f"u must be (G*B, L, D) and A (G, D, N), got {tuple(u.shape)} and {tuple(A.shape)}"
        )
    if A.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"A must be float32 or float64, got {A.dtype}")
    (rows, length, channels), (groups, _, states) = u.shape, A.shape
    if 0 in (rows, length, channels, groups, states):
        raise ValueError(
            f"no size of the scan may be zero, got u {tuple(u.shape)}, A {tuple(A.shape)}"
        )
    if rows % groups:
        raise ValueError(f"the {groups} groups of A must divide the first size of u, got {rows}")
    expected = {
        "delta": (delta, (rows, length, channels), u.dtype),
        "A": (A, (groups, channels, states), A.dtype),
        "B": (B, (rows, length, states), u.dtype),
        "C": (C, (rows, length, states), u.dtype),
        "D": (D, (groups, channels), A.dtype),
        "delta_bias": (delta_bias, (groups, channels), A.dtype),
    }
    for name, (tensor, shape, dtype) in expected.items():
        if tuple(tensor.shape) != shape or tensor.dtype != dtype:
            raise ValueError(
                f"{name} must be {shape} {dtype}, got {tuple(tensor.shape)} {tensor.dtype}"
            )


@selective_scan.register_fake
def _(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> Tensor:
    return torch.empty_like(u, memory_format=torch.contiguous_format)


@selective_scan_backward.register_fake
def _(grad_y: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in inputs)


def _save_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, ...]:
    inputs = ctx.saved_tensors
    if fused := _fused(inputs[0], inputs[2]):
        return _fused_gradients(fused, grad_y, inputs)
    result: tuple[Tensor, ...] = selective_scan_backward(grad_y, *inputs)
    return result


selective_scan.register_autograd(_backward, setup_context=_save_inputs)
