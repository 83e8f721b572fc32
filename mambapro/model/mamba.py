"""MA: Mamba Aggregation. Scans within each modality, then across all three."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambapro.config import ModelConfig
from mambapro.contract import MODALITIES
from mambapro.model.layers import initialise_linear
from mambapro.ops.selective_scan import selective_scan


class GroupedSSM(nn.Module):
    """G state-space models of the same size, run as one scan.

    ``[dt, B, C] = u W_x``, ``delta = softplus(dt W_dt + b_dt)``, ``A = -exp(A_log)``, then the
    selective scan and LayerNorm over channels.
    """

    def __init__(self, config: ModelConfig, groups: int):
        super().__init__()
        D, N, rank = config.scan_dim, config.state_size, config.dt_rank
        self.split_sizes = [rank, N, N]
        self.x_proj = nn.Parameter(torch.empty(groups, rank + 2 * N, D))
        self.dt_proj = nn.Parameter(torch.empty(groups, D, rank))
        self.dt_bias = nn.Parameter(torch.zeros(groups, D))
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, N + 1)).repeat(groups, D, 1))
        self.D = nn.Parameter(torch.ones(groups, D))
        self.norm_weight = nn.Parameter(torch.ones(groups, D))
        self.norm_bias = nn.Parameter(torch.zeros(groups, D))
        nn.init.trunc_normal_(self.x_proj, std=0.02)
        nn.init.trunc_normal_(self.dt_proj, std=0.02)

    def forward(self, u: Tensor) -> Tensor:
        """Scan u (G, B, L, D); the result has the same shape."""
        groups, batch, length, channels = u.shape
        projected = u.flatten(1, 2) @ self.x_proj.transpose(1, 2)  # (G, B*L, rank+2N)
        dt, B, C = projected.split(self.split_sizes, dim=-1)
        delta = dt @ self.dt_proj.transpose(1, 2)  # (G, B*L, D)
        rows = (groups * batch, length, -1)
        y = selective_scan(
            u.reshape(rows),
            delta.reshape(rows),
            self.decay_rates(),
            B.reshape(rows),
            C.reshape(rows),
            self.D,
            self.dt_bias,
        ).reshape(groups, batch, length, channels)
        scale, shift = self.norm_weight[:, None, None], self.norm_bias[:, None, None]
        return F.layer_norm(y, (channels,)) * scale + shift

    def decay_rates(self) -> Tensor:
        """Return A, (G, D, N), negative."""
        return -torch.exp(self.A_log)


class ScanUnit(nn.Module):
    """One residual unit: project, convolve, scan, gate, project back.

    ``intra`` scans each modality's P tokens with its own SSM; otherwise one SSM scans the 3P tokens
    in the order r, n, t.
    """

    def __init__(self, config: ModelConfig, intra: bool):
        super().__init__()
        D, scan = config.output_dim, config.scan_dim
        self.grid, self.intra = config.grid, intra
        self.in_proj = nn.ModuleList(nn.Linear(D, 2 * scan, bias=False) for _ in MODALITIES)
        self.conv = nn.ModuleList(
            nn.Sequential(nn.Conv2d(scan, scan, 3, padding=1, groups=scan), nn.BatchNorm2d(scan))
            for _ in MODALITIES
        )
        groups = len(MODALITIES) if intra else 1
        self.ssm = GroupedSSM(config, groups)
        self.reverse_ssm = GroupedSSM(config, groups) if config.bidirectional else None
        self.out_proj = nn.Linear(scan, D, bias=False)
        for linear in (*self.in_proj, self.out_proj):
            assert isinstance(linear, nn.Linear)
            initialise_linear(linear)

    def forward(self, p: Tensor) -> Tensor:
        """Map patch tokens (M, B, P, C) to (M, B, P, C)."""
        projected = torch.stack([proj(x) for proj, x in zip(self.in_proj, p, strict=True)])
        x, gate = projected.chunk(2, dim=-1)  # (M, B, P, D) each
        parts = [self._convolve(i, modality) for i, modality in enumerate(x)]  # M of (B, P, D)
        y = self._scan(torch.stack(parts)) if self.intra else self._scan_across(parts)
        return p + self.out_proj(y * F.silu(gate))

    def _convolve(self, index: int, x: Tensor) -> Tensor:
        image = x.transpose(1, 2).unflatten(2, self.grid)  # (B, D, gh, gw)
        return F.silu(self.conv[index](image)).flatten(2).transpose(1, 2)

    def _scan_across(self, parts: list[Tensor]) -> Tensor:
        tokens = torch.cat(parts, dim=1)  # (B, 3P, D)
        return self._scan(tokens[None])[0].unflatten(1, (len(MODALITIES), -1)).transpose(0, 1)

    def _scan(self, u: Tensor) -> Tensor:
        y: Tensor = self.ssm(u)
        if self.reverse_ssm is not None:
            y = y + self.reverse_ssm(u.flip(2)).flip(2)
        return y


class MambaAggregation(nn.Module):
    """Blocks of an intra and an inter unit, then one feature a modality."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        C = config.output_dim
        self.units = nn.ModuleList(
            ScanUnit(config, intra)
            for _ in range(config.aggregation_blocks)
            for intra in (True, False)
        )
        self.norm = nn.ModuleList(nn.LayerNorm(2 * C) for _ in MODALITIES)
        self.reduce = nn.ModuleList(nn.Linear(2 * C, C) for _ in MODALITIES)
        for linear in self.reduce:
            assert isinstance(linear, nn.Linear)
            initialise_linear(linear)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (M, B, 1+P, C) to the fused feature (B, M*C)."""
        class_tokens, p = tokens[:, :, 0], tokens[:, :, 1:]
        for unit in self.units:
            p = unit(p)
        pooled = torch.cat([class_tokens, p.mean(2)], dim=-1)  # (M, B, 2C)
        parts = zip(self.reduce, self.norm, pooled, strict=True)
        return torch.cat([reduce(norm(x)) for reduce, norm, x in parts], dim=-1)
