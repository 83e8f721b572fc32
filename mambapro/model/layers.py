"""Small pieces that several parts of the network use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

SLOPE: Final = 1.702
"""Of QuickGELU's sigmoid."""


def quick_gelu(x: Tensor) -> Tensor:
    """CLIP's approximation of GELU, ``x * sigmoid(1.702 x)``."""
    return x * torch.sigmoid(SLOPE * x)


class Bottleneck(nn.Module):
    """Linear, QuickGELU, Linear: the shape of adapters and of prompt transfers."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.activation: Callable[[Tensor], Tensor] = quick_gelu
        for linear in (self.fc1, self.fc2):
            initialise_linear(linear)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., D)."""
        return self.fc2(self.activation(self.fc1(x)))


def initialise_linear(linear: nn.Linear) -> None:
    """Truncated normal weights of deviation 0.02 and no bias, as the paper's code."""
    nn.init.trunc_normal_(linear.weight, std=0.02)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
