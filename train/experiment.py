"""One run from its config to its figures, in a folder of its own."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from mambapro import config as configs
from mambapro.cli import InputError
from mambapro.config import ExperimentConfig
from mambapro.datasets import Dataset
from mambapro.environment import environment, uncommitted
from mambapro.files import in_checkout, write_json, write_text
from mambapro.metrics import Ranking
from mambapro.model.network import MambaPro
from mambapro.model.weights import Checkpoint, load_checkpoint, load_pretrained
from train.data.sources import open_dataset
from train.distributed import World
from train.engine import BEST, Trainer
from train.evaluation import summary
from train.incomplete import learn_incomplete
from train.journal import logged

RESULT = "metrics.json"
"""Figures of the best network; there once a run is finished."""

_log = logging.getLogger("train")


def run_experiment(
    config: ExperimentConfig,
    output: Path,
    world: World,
    resumed: tuple[Checkpoint, str] | None = None,
) -> tuple[dict[str, Ranking], dict[str, Any]]:
    """Train as ``config`` says; return the best network's rankings and what metrics.json says.

    The folder ``output`` then holds config.yaml, environment.json, uncommitted.patch (when files
    differ from the commit), train.log, metrics.jsonl, tensorboard/, last.pt, best.pt and
    metrics.json. ``resumed`` is a checkpoint to go on from and its path.
    """
    started = time.monotonic()
    make_deterministic(config.train.deterministic)
    dataset = world.leader_first(lambda: open_dataset(config))
    trainer = build_trainer(config, dataset, output, world)
    if resumed is not None:
        trainer.resume(*resumed)
    if world.leads:  # nothing is written before all input is known to be good
        describe(output, config, world)
    with logged(output, world.leads):
        if resumed is None:
            trainer.progress.untrained_map = world.from_leader(trainer.evaluate)["map"]
        trainer.train()
        if config.train.modality_dropout:
            learn_incomplete(trainer)
        rankings, result = world.from_leader(lambda: judge(trainer))
        result["seconds"] = time.monotonic() - started
        if world.leads:
            write_json(output / RESULT, result)
    return rankings, result


def describe(output: Path, config: ExperimentConfig, world: World) -> None:
    """Write what the run's figures depend on into its folder."""
    write_text(output / "config.yaml", configs.to_yaml(config))
    facts = {
        "torch_device": str(world.device),
        "torch_threads": torch.get_num_threads(),
        "processes": world.size,
        "command": sys.argv,
    }
    write_json(output / "environment.json", {**environment(), **facts})
    if patch := uncommitted():
        write_text(output / "uncommitted.patch", patch)


def judge(trainer: Trainer) -> tuple[dict[str, Ranking], dict[str, Any]]:
    """Rank in every way with the best network; return that and its summary."""
    path = trainer.output / BEST
    best = load_checkpoint(path)
    rankings = trainer.evaluator.rank_everything(best.network.to(trainer.device))
    return rankings, {
        **summary(rankings),
        "untrained_map": trainer.progress.untrained_map,
        "best_epoch": best.training["epoch"],
        "train_seconds": trainer.progress.seconds,
        "checkpoint": str(path),
    }


def build_trainer(
    config: ExperimentConfig, dataset: Dataset, output: Path, world: World
) -> Trainer:
    """Return a trainer whose weights are drawn from train.seed, or are the pretrained ones."""
    torch.manual_seed(config.train.seed)
    network = MambaPro(config.model)
    if config.train.pretrained is not None:
        kind = load_pretrained(network, in_checkout(config.train.pretrained))
        _log.info("starting from %s (%s weights)", config.train.pretrained, kind)
    elif config.model.frozen:
        _log.warning(
            "the visual tower is frozen and random: set train.pretrained to CLIP weights, or "
            "model.frozen=false to train from scratch"
        )
    return Trainer(config, network, dataset, output, world)


def make_deterministic(on: bool) -> None:
    """Refuse operations whose result may differ from run to run, or allow them again."""
    if on:  # read by cuBLAS when CUDA starts
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(on)
    torch.backends.cudnn.benchmark = False


def read_config(
    path: Path, overrides: Sequence[str], resumed: Checkpoint | None, given: bool
) -> ExperimentConfig:
    """Return the run's config: that of the YAML file ``path``, or the resumed run's own.

    ``given`` says that the user asked for ``path``. InputError when a resumed network has another
    architecture.
    """
    if resumed is None or given:
        config = configs.load(ExperimentConfig, path, overrides)
    else:
        values = configs.merge_overrides(configs.to_dict(resumed.config), overrides)
        config = configs.from_dict(ExperimentConfig, values)
    if resumed is not None:
        _compare(resumed.config, config)
    return config


def _compare(saved: ExperimentConfig, config: ExperimentConfig) -> None:
    changed = differences(saved, config)
    model = [change for change in changed if change.startswith("model.")]
    if model:
        raise InputError(f"the checkpoint to resume has another architecture: {', '.join(model)}")
    if changed:
        _log.warning("going on with other settings, not as uninterrupted: %s", ", ".join(changed))


def differences(saved: ExperimentConfig, config: ExperimentConfig) -> list[str]:
    """Return a phrase a setting that differs, such as ``train.epochs 3 -> 4``."""
    before, now = (dict(_flat(configs.to_dict(c))) for c in (saved, config))
    return [
        f"{key} {before.get(key)} -> {now.get(key)}"
        for key in {**before, **now}
        if before.get(key) != now.get(key)
    ]


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
