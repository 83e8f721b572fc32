"""The paper's recipes: one step each at full size, on data in the real layout."""

import math
from pathlib import Path

import pytest
import torch

from mambapro import config as configs
from mambapro.config import ExperimentConfig
from mambapro.model.network import ADAPTED
from mambapro.synthetic.datasets import write_dataset
from train.data.sources import open_dataset
from train.distributed import World
from train.experiment import build_trainer

ROOT = Path(__file__).parents[1]
RECIPES = ("rgbnt201", "rgbnt100", "msvr310")
SMALL = ("train.batch_size=4", "train.instances=2", "data.workers=0")
"""A batch of four instead of 64 or 128 triplets; all else is the recipe's."""


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_one_step_at_full_size(tmp_path, name):
    write_dataset(name, tmp_path, identities=(2, 1), images_per_camera=1, cameras=2, workers=1)
    settings = (*SMALL, f"data.root={tmp_path}")
    config = configs.load(ExperimentConfig, ROOT / "configs" / f"{name}.yaml", settings)
    trainer = build_trainer(config, open_dataset(config), tmp_path, World(torch.device("cpu")))
    before = {name: p.detach().clone() for name, p in trainer.learner.network.named_parameters()}
    trainer.learner.start_epoch(config.train.warmup_epochs)
    loss = trainer.learner.step([next(iter(trainer.loader))])
    assert math.isfinite(loss)
    changed = {
        name
        for name, p in trainer.learner.network.named_parameters()
        if not torch.equal(p, before[name])
    }
    tower = {name for name in before if name.startswith("tower.")}
    assert {name.split(".")[-2] for name in changed & tower} >= {"fc1", "fc2", "prompts"}
    assert "tower.cv_embed" in changed
    assert all(ADAPTED.intersection(name.split(".")) for name in changed & tower)
    assert any(name.startswith("aggregation.units.3.") for name in changed)
