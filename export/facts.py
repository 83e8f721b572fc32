"""The facts that a model file states about itself, computed from a checkpoint."""

from __future__ import annotations

import hashlib
import json

from mambapro.config import ExperimentConfig, to_dict
from mambapro.contract import MODALITIES, PIXEL_MEAN, PIXEL_STD
from mambapro.model.network import MambaPro
from mambapro.preprocess import RESIZE_RULE
from mambapro.spec import ModelSpec

_TRAINING_ONLY = ("frozen", "direct")
"""Settings of the model section that do not change what the network computes."""


def model_spec(config: ExperimentConfig, network: MambaPro) -> ModelSpec:
    """Return what is known of an exported ``network`` before any threshold is chosen."""
    weights = weights_hash(network)
    return ModelSpec(
        subject=config.data.subject,
        image_size=config.model.image_size,
        embedding_dim=config.model.embedding_dim,
        cameras=config.model.cameras,
        embedding_space=embedding_space(config, weights),
        weights_hash=weights,
        training=to_dict(config),
    )


def weights_hash(network: MambaPro) -> str:
    """Return the SHA-256 over names, types, shapes and bytes of all tensors of the network."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        values = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {values.dtype} {values.shape}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def embedding_space(config: ExperimentConfig, weights: str) -> str:
    """Return a hash that is equal where embeddings can be compared: weights and preprocessing."""
    model = {k: v for k, v in to_dict(config.model).items() if k not in _TRAINING_ONLY}
    pixels = [RESIZE_RULE, PIXEL_MEAN, PIXEL_STD, list(MODALITIES)]
    facts = json.dumps([weights, model, pixels], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()
