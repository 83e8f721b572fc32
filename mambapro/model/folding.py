"""Fold what no input changes, for inference: prompts, batch normalisation, camera rows, decay."""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mambapro.model.clip import Block, VisualTower, camera_rows
from mambapro.model.mamba import GroupedSSM, ScanUnit
from mambapro.model.network import MambaPro
from mambapro.model.prompts import FoldedPrompts


def fold(network: MambaPro) -> MambaPro:
    """Return a copy of ``network`` in eval mode that computes the same with fewer parameters.

    The prompt transfers of all slots and the unused residual of the first block go away (about
    21 M parameters at full size), BatchNorm goes into the convolution before it, ``-exp(A_log)``
    and the class token of each camera become constants.
    """
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    folded.tower = _FoldedTower.of(folded.tower)
    for module in list(folded.modules()):
        if isinstance(module, Block) and module.prompts is not None:
            module.prompts = FoldedPrompts(module.prompts)  # type: ignore[assignment]
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
