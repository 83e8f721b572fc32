"""Which patches of each modality make two triplets alike: attribution of a cosine, by captum.

``integrated gradients`` (Sundararajan et al., ICML 2017) go from a triplet without any modality to
the triplet itself; summed over all pixels they are what the triplet adds to the cosine.
``grad-cam`` (Selvaraju et al., ICCV 2017) weighs the patch tokens that enter the last block, from
where they reach the embedding through attention and through Mamba Aggregation.
Decision 0051 says how far each can be trusted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients, LayerGradCam
from torch import Tensor, nn

from mambapro.contract import MODALITIES
from mambapro.model.clip import Block
from mambapro.model.network import MambaPro, normalise

STEPS: Final = 16
"""Points on the way of integrated gradients; their error is a few thousandths of a cosine."""
BATCH: Final = 32
"""Triplets in memory at once."""

Similarity = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From pixels (B, M, 3, H, W), cameras (B,) and embeddings (B, M*C) to cosines (B,)."""


def relevance(
    network: MambaPro, images: Tensor, camera: Tensor, wanted: Tensor, method: str
) -> Tensor:
    """Return what each patch of ``images`` adds to the cosine with the embeddings ``wanted``.

    Args:
        network: in eval mode.
        images: (B, M, H, W, 3) uint8.
        camera: (B,) int64.
        wanted: (B, M*C); what each triplet is compared to.
        method: a key of :data:`METHODS`.

    Returns:
        (B, M, gh, gw), negative where a patch speaks against. The scale is a cosine with integrated
        gradients, and arbitrary with Grad-CAM.
    """
    mask = torch.ones(len(images), len(MODALITIES), device=images.device)
    pixels = normalise(images, mask).transpose(0, 1)  # (B, M, 3, H, W): captum wants B first
    return METHODS[method](network, pixels, (camera, wanted))


def similarity(network: MambaPro) -> Similarity:
    """Return the cosine as a function of pixels."""

    def cosine(pixels: Tensor, camera: Tensor, wanted: Tensor) -> Tensor:
        feature = network(pixels.transpose(0, 1), camera).embedding()
        if network.centre is not None:
            feature = feature - network.centre
        return F.cosine_similarity(feature, wanted)

    return cosine


def integrated_gradients(
    network: MambaPro, pixels: Tensor, others: tuple[Tensor, Tensor]
) -> Tensor:
    """Sum what the pixels of each patch add; the baseline, zeros, is what a missing modality is."""
    found = IntegratedGradients(similarity(network)).attribute(
        pixels, additional_forward_args=others, n_steps=STEPS, internal_batch_size=BATCH
    )
    side = network.config.patch_size
    by_pixel: Tensor = found.detach().sum(2)  # (B, M, H, W)
    return side**2 * F.avg_pool2d(by_pixel, side)


def grad_cam(network: MambaPro, pixels: Tensor, others: tuple[Tensor, Tensor]) -> Tensor:
    """Weigh the channels of patch tokens by their mean gradient."""
    with watched(network) as maps:
        cam = LayerGradCam(similarity(network), maps).attribute(
            pixels, additional_forward_args=others
        )  # (M*B, 1, gh, gw)
    batch, grid = len(pixels), network.config.grid
    by_modality: Tensor = cam.detach().reshape(len(MODALITIES), batch, *grid)
    return by_modality.transpose(0, 1)


METHODS: Final = {"integrated-gradients": integrated_gradients, "grad-cam": grad_cam}


class Watched(nn.Module):
    """A block whose incoming patch tokens pass through ``maps`` as pictures (M*B, D, gh, gw)."""

    def __init__(self, block: Block, grid: tuple[int, int]):
        super().__init__()
        self.block, self.grid = block, grid
        self.maps = nn.Identity()

    def forward(self, x: Tensor, fused: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Map tokens (1+P, M*B, D) like the block."""
        rows, channels = x.shape[1:]
        maps = self.maps(x[1:].permute(1, 2, 0).reshape(rows, channels, *self.grid))
        patches = maps.flatten(2).permute(2, 0, 1)  # (P, M*B, D)
        result: tuple[Tensor, Tensor | None] = self.block(torch.cat([x[:1], patches]), fused)
        return result


@contextlib.contextmanager
def watched(network: MambaPro) -> Iterator[nn.Module]:
    """Yield the module that the last block's patch tokens pass through, while it is there."""
    blocks = network.tower.blocks
    block = blocks[-1]
    assert isinstance(block, Block)
    watching = Watched(block, network.config.grid)
    blocks[-1] = watching
    try:
        yield watching.maps
    finally:
        blocks[-1] = block
