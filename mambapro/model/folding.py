"""Fold what no input changes, for inference: prompts, batch normalisation, camera rows, decay.

And lay out products so that runtimes need no copies: query, key and value apart, and activations
whose factor is part of the weights around them.
"""

from __future__ import annotations

import copy

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mambapro.model.clip import MLP, Attention, Block, VisualTower, camera_rows
from mambapro.model.layers import SLOPE, Bottleneck
from mambapro.model.mamba import GroupedSSM, ScanUnit
from mambapro.model.network import MambaPro
from mambapro.model.prompts import FoldedPrompts


def fold(network: MambaPro) -> MambaPro:
    """Return a copy of ``network`` in eval mode that computes the same with fewer parameters.

    The prompt transfers of all slots and the unused residual of the first block go away (about
    21 M parameters at full size), BatchNorm goes into the convolution before it, ``-exp(A_log)``
    and the class token of each camera become constants. Query, key and value become products of
    their own, QuickGELU becomes SiLU with its factor in the weights before and after, and a bias
    that another can do for goes into that: ONNX Runtime writes each in a pass of its own.
    """
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    folded.tower = _FoldedTower.of(folded.tower)
    for module in list(folded.modules()):
        if isinstance(module, Block):
            _fold_block(module)
        elif isinstance(module, Attention):
            _FoldedAttention.of(module)
        elif isinstance(module, MLP):
            _fold_slope(module, module.c_fc, module.c_proj)
        elif isinstance(module, Bottleneck):
            _fold_slope(module, module.fc1, module.fc2)
        elif isinstance(module, ScanUnit):
            module.conv = nn.ModuleList(_fuse(pair) for pair in module.conv)
        elif isinstance(module, GroupedSSM):
            _fold_decay(module)
    return folded


class _FoldedTower(VisualTower):
    """A tower whose class tokens are one table."""

    class_table: Tensor

    @classmethod
    def of(cls, tower: VisualTower) -> VisualTower:
        """Turn ``tower`` into a folded one in place; without SIE there is nothing to fold."""
        if tower.cv_embed is None:
            return tower
        table = tower.camera_table()
        tower.cv_embed = None
        tower.__class__ = cls
        tower.register_buffer("class_table", table.detach())
        return tower

    def class_tokens(self, camera: Tensor) -> Tensor:
        """Return the class token of each camera, (B, D)."""
        return camera_rows(self.class_table, camera)


class _FoldedAttention(Attention):
    """Attention whose query, key and value are not cut out of one product."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear

    @classmethod
    def of(cls, attention: Attention) -> None:
        """Turn ``attention`` into a folded one in place.

        The key's bias adds the same to all scores of a query, which softmax takes away; the
        value's passes through weights that sum to one.
        """
        weights = attention.in_proj.weight.chunk(3)
        query_bias, _, value_bias = attention.in_proj.bias.chunk(3)
        for name, weight in zip(("query", "key", "value"), weights, strict=True):
            linear = nn.Linear(weight.shape[1], weight.shape[0], bias=name == "query")
            linear.weight = nn.Parameter(weight.clone())
            if name == "query":
                linear.bias = nn.Parameter(query_bias.clone())
            attention.add_module(name, linear.requires_grad_(False))
        attention.out_proj.bias.add_(attention.out_proj.weight @ value_bias)
        del attention.in_proj
        attention.__class__ = cls

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return query, key and value, each (T*rows, D)."""
        return self.query(x), self.key(x), self.value(x)


def _fold_block(block: Block) -> None:
    """Prompts become constants; the adapter's last bias goes into that of the MLP beside it."""
    if block.prompts is not None:
        block.prompts = FoldedPrompts(block.prompts)  # type: ignore[assignment]
    if block.adapter is not None:
        block.mlp.c_proj.bias.add_(block.adapter.fc2.bias)
        block.adapter.fc2.register_parameter("bias", None)


def _fold_slope(module: MLP | Bottleneck, before: nn.Linear, after: nn.Linear) -> None:
    """``x sigmoid(s x)`` is ``SiLU(s x) / s``; runtimes compute SiLU twice as fast."""
    before.weight.mul_(SLOPE)
    before.bias.mul_(SLOPE)
    after.weight.div_(SLOPE)
    module.activation = F.silu


def _fuse(pair: nn.Module) -> nn.Module:
    assert isinstance(pair, nn.Sequential)
    conv, norm = pair
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return fuse_conv_bn_eval(conv, norm)


def _fold_decay(ssm: GroupedSSM) -> None:
    A = ssm.decay_rates().detach()
    del ssm.A_log
    ssm.register_buffer("A", A)
    ssm.decay_rates = lambda: ssm.A  # type: ignore[method-assign,assignment,return-value]
