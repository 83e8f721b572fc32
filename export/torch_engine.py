"""The network in PyTorch as an engine: what model files are held against."""

from __future__ import annotations

import numpy as np
import torch

from export.facts import model_spec
from mambapro.config import ExperimentConfig
from mambapro.model.network import MambaPro
from mambapro.spec import ModelSpec
from runtime.engines import DEFAULT_MAX_BATCH, Cameras, Embeddings, Images, Mask, check_inputs


class TorchEngine:
    """Runs ``network.embed`` on the CPU."""

    def __init__(
        self, config: ExperimentConfig, network: MambaPro, max_batch: int = DEFAULT_MAX_BATCH
    ):
        self.network, self.max_batch = network.eval(), max_batch
        self._spec = model_spec(config, network)

    @property
    def spec(self) -> ModelSpec:
        """Facts about the model that runs."""
        return self._spec

    def embed(self, images: Images, mask: Mask, camera: Cameras) -> Embeddings:
        """Embed any number of triplets; see :meth:`runtime.engines.Engine.embed`."""
        check_inputs(images, mask, camera, self._spec)
        embeddings = np.empty((len(images), self._spec.embedding_dim), np.float32)
        for start in range(0, len(images), self.max_batch):
            part = slice(start, start + self.max_batch)
            tensors = (torch.from_numpy(x[part]) for x in (images, mask, camera))
            with torch.inference_mode():
                embeddings[part] = self.network.embed(*tensors).numpy()
        return embeddings
