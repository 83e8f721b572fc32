"""CLIP's visual tower (Radford et al., 2021), with the adapters and prompts of MambaPro put in."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mambapro.config import ModelConfig
from mambapro.contract import MODALITIES
from mambapro.model.adapters import ParallelAdapter
from mambapro.model.layers import quick_gelu
from mambapro.model.prompts import Prompts


class Attention(nn.Module):
    """Multi-head self-attention of tokens (T, rows, D), scaled by head size, no mask."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, length: int) -> Tensor:
        """Attend among ``length`` = T tokens; shapes stay (T*rows, D)."""
        query, key, value = (self._by_head(part, length) for part in self.project(x))
        attended = F.scaled_dot_product_attention(query, key, value)  # (rows, heads, T, d)
        return self.out_proj(attended.permute(2, 0, 1, 3).flatten(2).flatten(0, 1))

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return query, key and value, each (T*rows, D)."""
        return self.in_proj(x).chunk(3, dim=-1)

    def _by_head(self, x: Tensor, length: int) -> Tensor:
        split = x.unflatten(-1, (self.heads, -1)).unflatten(0, (length, -1))
        return split.permute(1, 2, 0, 3)  # (rows, heads, T, d)


class MLP(nn.Module):
    """The feed-forward part of a block, four times as wide."""

    def __init__(self, width: int):
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)
        self.activation: Callable[[Tensor], Tensor] = quick_gelu

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., D)."""
        return self.c_proj(self.activation(self.c_fc(x)))


class Block(nn.Module):
    """One transformer block; with prompts it also hands on the fused prompt."""

    def __init__(self, config: ModelConfig, first: bool):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.width)
        self.attn = Attention(config.width, config.heads)
        self.ln_2 = nn.LayerNorm(config.width)
        self.mlp = MLP(config.width)
        self.adapter = ParallelAdapter(config.width, config.adapter_dim) if config.pfa else None
        self.prompts = Prompts(config, first) if config.srp else None

    def forward(self, x: Tensor, fused: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Map tokens (1+P, M*B, D) and the previous fused prompt (K, M*B, D) to the next ones."""
        if self.prompts is None:
            return self.transform(x), None
        appended = self.prompts(x.shape[1] // len(MODALITIES), fused)  # (3K, M*B, D)
        tokens = self.transform(torch.cat([x, appended]))
        x, appended = tokens[: x.shape[0]], tokens[x.shape[0] :]
        return x, appended.unflatten(0, (len(MODALITIES), -1)).mean(0)

    def transform(self, x: Tensor) -> Tensor:
        """Attention, MLP and adapter on (T, rows, D)."""
        length, x = x.shape[0], x.flatten(0, 1)  # (T*rows, D): one matrix, so products take biases
        x = x + self.attn(self.ln_1(x), length)
        branch = self.mlp(self.ln_2(x))
        if self.adapter is not None:
            branch = branch + self.adapter(x)
        return (x + branch).unflatten(0, (length, -1))


class VisualTower(nn.Module):
    """Patches, class token with camera embedding, blocks and projection."""

    checkpointing = False
    """Compute each block again for its gradients instead of keeping its activations."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        height, width = config.grid
        self.sie_coefficient = config.sie_coefficient
        self.conv1 = nn.Conv2d(
            3, config.width, config.patch_size, stride=config.patch_size, bias=False
        )
        self.class_embedding = nn.Parameter(torch.empty(config.width))
        self.positional_embedding = nn.Parameter(torch.empty(1 + height * width, config.width))
        self.cv_embed = (
            nn.Parameter(torch.empty(config.cameras, config.width)) if config.sie else None
        )
        self.ln_pre = nn.LayerNorm(config.width)
        self.blocks = nn.ModuleList(Block(config, first=i == 0) for i in range(config.depth))
        self.ln_post = nn.LayerNorm(config.width)
        self.proj = nn.Parameter(torch.empty(config.width, config.output_dim))
        self._initialise(config)

    def forward(self, pixels: Tensor, camera: Tensor) -> Tensor:
        """Map normalised pixels (M, B, 3, H, W) and cameras (B,) to tokens (M, B, 1+P, C)."""
        modalities, batch = pixels.shape[:2]
        patches = self.conv1(pixels.flatten(0, 1)).flatten(2).permute(2, 0, 1)  # (P, M*B, D)
        first = self.class_tokens(camera).repeat(modalities, 1)[None]  # (1, M*B, D)
        x = torch.cat([first, patches]) + self.positional_embedding[:, None]
        x, fused = self.ln_pre(x), None
        for block in self.blocks:
            if self.checkpointing and self.training:
                x, fused = checkpoint(block, x, fused, use_reentrant=False)
            else:
                x, fused = block(x, fused)
        x = self.ln_post(x.transpose(0, 1)) @ self.proj  # (M*B, 1+P, C)
        return x.unflatten(0, (modalities, batch))

    def class_tokens(self, camera: Tensor) -> Tensor:
        """Return the class token of each camera, (B, D); a negative camera takes the mean row."""
        if self.cv_embed is None:
            return self.class_embedding.expand(camera.shape[0], -1)
        return camera_rows(self.camera_table(), camera)

    def camera_table(self) -> Tensor:
        """Return one class token a camera, and last the one for an unknown camera."""
        assert self.cv_embed is not None
        rows = torch.cat([self.cv_embed, self.cv_embed.mean(0, keepdim=True)])
        return self.class_embedding + self.sie_coefficient * rows

    def _initialise(self, config: ModelConfig) -> None:
        """Draw CLIP's own initial values; a loader overwrites them when there is a checkpoint."""
        scale = config.width**-0.5
        nn.init.normal_(self.class_embedding, std=scale)
        nn.init.normal_(self.positional_embedding, std=scale)
        nn.init.normal_(self.proj, std=scale)
        if self.cv_embed is not None:
            nn.init.trunc_normal_(self.cv_embed, std=0.02)
        residual = scale * (2 * config.depth) ** -0.5
        for block in self.blocks:
            assert isinstance(block, Block)
            nn.init.normal_(block.attn.in_proj.weight, std=scale)
            nn.init.normal_(block.attn.out_proj.weight, std=residual)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * config.width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=residual)
            for linear in (
                block.attn.in_proj,
                block.attn.out_proj,
                block.mlp.c_fc,
                block.mlp.c_proj,
            ):
                nn.init.zeros_(linear.bias)


def camera_rows(table: Tensor, camera: Tensor) -> Tensor:
    """Pick rows of a table whose last row stands for negative (unknown) cameras."""
    return table.index_select(0, torch.where(camera < 0, table.shape[0] - 1, camera))
