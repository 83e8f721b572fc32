"""SRP: Synergistic Residual Prompts, twelve tokens that carry one modality's view to another."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mambapro.config import ModelConfig
from mambapro.contract import MODALITIES
from mambapro.model.layers import Bottleneck

SLOTS = len(MODALITIES)


class Prompts(nn.Module):
    """The prompts of one block.

    The stream of modality m gets three slots of K tokens: slot j != m holds ``P_j + T_j(P_j)``;
    slot m holds ``P_m``, from the second block on ``P_m + F + R(F)`` with F the fused prompt that
    the stream's previous block put out.
    """

    own_slot: Tensor

    def __init__(self, config: ModelConfig, first: bool):
        super().__init__()
        self.first = first
        self.learned = nn.Parameter(torch.zeros(SLOTS, config.prompts, config.width))
        self.transfer = nn.ModuleList(
            Bottleneck(config.width, config.prompt_dim) for _ in MODALITIES
        )
        self.residual = Bottleneck(config.width, config.prompt_dim)
        self.register_buffer("own_slot", torch.eye(SLOTS)[:, None, :, None, None], persistent=False)

    def forward(self, batch: int, fused: Tensor | None) -> Tensor:
        """Return the appended tokens (3K, M*B, D); ``fused`` is (K, M*B, D), not None but first."""
        return place_slots(
            self.constant_slots(),
            None if self.first else self.residual,
            self.own_slot,
            batch,
            fused,
        )

    def constant_slots(self) -> Tensor:
        """Return what no input changes, (M, slot, K, D): with it folded the transfers go away."""
        moved = torch.stack([t(p) for t, p in zip(self.transfer, self.learned, strict=True)])
        return self.learned + (1 - self.own_slot[:, 0]) * moved


class FoldedPrompts(nn.Module):
    """:class:`Prompts` for inference, its constant slots computed once."""

    own_slot: Tensor
    slots: Tensor

    def __init__(self, prompts: Prompts):
        super().__init__()
        self.residual = None if prompts.first else prompts.residual
        self.register_buffer("slots", prompts.constant_slots().detach())
        self.register_buffer("own_slot", prompts.own_slot, persistent=False)

    def forward(self, batch: int, fused: Tensor | None) -> Tensor:
        """Return the appended tokens (3K, M*B, D)."""
        return place_slots(self.slots, self.residual, self.own_slot, batch, fused)


def place_slots(
    slots: Tensor, residual: nn.Module | None, own_slot: Tensor, batch: int, fused: Tensor | None
) -> Tensor:
    """Give every batch item the slots (M, slot, K, D), the fused prompt added to the own one."""
    by_slot = slots.permute(1, 2, 0, 3)[:, :, :, None]  # (slot, K, M, 1, D)
    if residual is None:
        tokens = by_slot.expand(-1, -1, -1, batch, -1)
    else:
        assert fused is not None
        carried = (fused + residual(fused)).unflatten(1, (SLOTS, batch))  # (K, M, B, D)
        own = own_slot.permute(2, 3, 0, 1, 4)  # (slot, 1, M, 1, 1)
        tokens = by_slot + own * carried
    return tokens.flatten(2, 3).flatten(0, 1)  # (3K, M*B, D)
