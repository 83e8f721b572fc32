"""From crops to embeddings: one way for the stream and for whoever searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mambapro.contract import UNKNOWN_CAMERA, Modality
from mambapro.preprocess import Picture, stack
from runtime.engines import Engine
from runtime.gallery import Embedding

Crops = Mapping[Modality, Picture]
"""What the cameras of a rig saw of one subject, (H, W, 3) uint8 R, G, B; one may be missing."""


def embed(engine: Engine, triplets: Sequence[Crops], cameras: Sequence[int]) -> list[Embedding]:
    """Embed ``triplets``, taken by rigs with these rows of the camera embedding.

    A row that the model does not know is that of an unknown camera. Any thread may call.
    """
    if not triplets:
        return []
    size = engine.spec.image_size
    stacked = [stack({str(m): picture for m, picture in t.items()}, size) for t in triplets]
    images = np.stack([images for images, _ in stacked])  # (B, 3, H, W, 3)
    mask = np.stack([mask for _, mask in stacked])  # (B, 3)
    rows = [row if row < engine.spec.cameras else UNKNOWN_CAMERA for row in cameras]
    return list(engine.embed(images, mask, np.array(rows, np.int64)))
