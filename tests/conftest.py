"""Fixtures and settings that several test files share."""

import os

# Before torch loads; see train/main.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch

from mambapro.config import ModelConfig

torch.set_num_threads(min(2, os.cpu_count() or 1))

TINY = ModelConfig(
    image_size=(32, 16),
    patch_size=8,
    width=32,
    depth=3,
    heads=2,
    output_dim=16,
    prompts=2,
    prompt_dim=8,
    adapter_dim=24,
    state_size=4,
    scan_dim=24,
    dt_rank=4,
    aggregation_blocks=2,
    cameras=3,
    frozen=False,
)


@pytest.fixture
def tiny() -> ModelConfig:
    """A network of the same code, small enough for any test."""
    return TINY
