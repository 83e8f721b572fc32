"""The network as the paper's code runs it: the baseline of ``benchmarks/latency.py``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from mambapro.contract import MODALITIES
from mambapro.model import mamba
from mambapro.model.clip import Block
from mambapro.model.network import MambaPro, normalise
from mambapro.model.prompts import Prompts
from mambapro.ops.selective_scan import selective_scan_reference


class SeparatePasses:
    """Same weights and same embeddings as ``network.embed``, in the published formulation.

    The tower runs three times, once a modality, each time with the prompt transfers that this
    stream's slots need; the scan walks step by step in eager PyTorch, eight times a forward: one
    for each modality in the two intra units of three, one in each of the two inter units. Linear
    algebra is PyTorch's own, as in ours. Nothing is made slower on purpose: attention is the fused
    one, and no gradient is recorded.
    """

    def __init__(self, network: MambaPro):
        self.network = network.eval()

    @torch.inference_mode()
    def embed(self, images: Tensor, mask: Tensor, camera: Tensor) -> Tensor:
        """Map crops to embeddings; see :meth:`MambaPro.embed`."""
        pixels = normalise(images, mask)  # (M, B, 3, H, W)
        tokens = torch.stack([self.stream(m, pixels[m], camera) for m in range(len(MODALITIES))])
        aggregation = self.network.aggregation
        assert aggregation is not None
        with _sequential_scan():
            feature = aggregation(tokens)
        if self.network.centre is not None:
            feature = feature - self.network.centre
        return torch.nn.functional.normalize(feature, dim=-1)

    def stream(self, modality: int, pixels: Tensor, camera: Tensor) -> Tensor:
        """Run the tower on one modality's pixels (B, 3, H, W); return tokens (B, 1+P, C)."""
        tower = self.network.tower
        patches = tower.conv1(pixels).flatten(2).permute(2, 0, 1)  # (P, B, D)
        x = torch.cat([tower.class_tokens(camera)[None], patches])
        x, fused = tower.ln_pre(x + tower.positional_embedding[:, None]), None
        for block in tower.blocks:
            assert isinstance(block, Block)
            x, fused = _run_block(block, modality, x, fused)
        return tower.ln_post(x.transpose(0, 1)) @ tower.proj


def _run_block(
    block: Block, modality: int, x: Tensor, fused: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    if block.prompts is None:
        return block.transform(x), None
    length = len(x)
    slots = _slots(block.prompts, modality, x.shape[1], fused)
    tokens = block.transform(torch.cat([x, *slots]))
    return tokens[:length], tokens[length:].unflatten(0, (len(MODALITIES), -1)).mean(0)


def _slots(prompts: Prompts, modality: int, batch: int, fused: Tensor | None) -> list[Tensor]:
    """Return the three slots of one stream, each (K, B, D)."""
    slots = []
    for other in range(len(MODALITIES)):
        learned = prompts.learned[other]
        if other != modality:
            learned = learned + prompts.transfer[other](learned)
        slot = learned[:, None].expand(-1, batch, -1)
        if other == modality and fused is not None and not prompts.first:
            slot = slot + fused + prompts.residual(fused)
        slots.append(slot)
    return slots


@contextlib.contextmanager
def _sequential_scan() -> Iterator[None]:
    """Let aggregation scan each group in a call of its own, one step after the other."""
    before = mamba.selective_scan  # type: ignore[attr-defined]  # where the network looks
    try:
        setattr(mamba, "selective_scan", _scan_groups)  # noqa: B010 (mypy: reassigned)
        yield
    finally:
        setattr(mamba, "selective_scan", before)  # noqa: B010


def _scan_groups(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> Tensor:
    groups = len(A)
    carried = zip(*(x.chunk(groups) for x in (u, delta, B, C)), strict=True)
    return torch.cat(
        [
            selective_scan_reference(
                u_g, delta_g, A[g : g + 1], B_g, C_g, D[g : g + 1], delta_bias[g : g + 1]
            )
            for g, (u_g, delta_g, B_g, C_g) in enumerate(carried)
        ]
    )
