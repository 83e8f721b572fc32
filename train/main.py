"""Train a network and evaluate it: ``python train/main.py``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
# Read by OpenMP when torch loads: threads that spin while they wait make a step up to ten times
# slower when another process shares the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from mambapro import config as configs
from mambapro.cli import (
    InputError,
    MissingError,
    add_common_arguments,
    print_json_line,
    run,
    start_logging,
)
from mambapro.config import ExperimentConfig
from mambapro.datasets import Dataset
from mambapro.environment import environment
from mambapro.files import in_checkout, write_json, write_text
from mambapro.model.network import MambaPro
from mambapro.model.weights import Checkpoint, load_checkpoint, load_pretrained
from train.data.sources import open_dataset
from train.engine import BEST, LAST, Trainer
from train.evaluation import FUSED, SUBSETS, summary, table

DEMO_CONFIG = in_checkout("configs/demo_person.yaml")

_log = logging.getLogger("train")


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the arguments say, print the table of the best network, return the exit code."""
    started = time.monotonic()
    arguments = parse(argv)
    start_logging(arguments.verbose)
    device = pick_device(arguments.device)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    output, resumed = find_run(arguments.output, arguments.resume, arguments.config)
    config = read_config(arguments.config, arguments.set, resumed)
    dataset = open_dataset(config)

    output.mkdir(parents=True, exist_ok=True)
    trainer = build_trainer(config, dataset, output, device)
    if resumed is None:
        trainer.progress.untrained_map = trainer.evaluator.rank(trainer.network)[FUSED].map
    else:
        trainer.resume(resumed, arguments.resume)
    write_text(output / "config.yaml", configs.to_yaml(config))
    facts = {"torch_device": str(device), "torch_threads": torch.get_num_threads()}
    write_json(output / "environment.json", {**environment(), **facts})
    trainer.train()

    best = load_checkpoint(output / BEST)
    rankings = trainer.evaluator.rank(best.network.to(device), SUBSETS)
    print(table(rankings))
    print(
        f"untrained network: mAP {trainer.progress.untrained_map:.1%}; "
        f"best network (epoch {best.training['epoch']}): {output / BEST}"
    )
    result = {
        **summary(rankings),
        "untrained_map": trainer.progress.untrained_map,
        "best_epoch": best.training["epoch"],
        "train_seconds": trainer.progress.seconds,
        "seconds": time.monotonic() - started,
        "checkpoint": str(output / BEST),
    }
    write_json(output / "metrics.json", result)
    if arguments.json:
        print_json_line(result)
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        description="Train MambaPro on a dataset and evaluate every subset of modalities.",
        epilog=configs.help_text(ExperimentConfig),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="YAML of the run (default: the resumed run's own, else configs/demo_person.yaml)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change one setting; may be given again (default: none)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="folder of checkpoints and figures (default: the resumed run's, else runs/ and the "
        "name of --config without demo_: runs/person)",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const=LAST,
        metavar="FILE",
        help=f"go on from this checkpoint; without FILE from {LAST} in --output (default: off)",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where to train; auto is cuda if there is one (default: auto)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="CPU threads of torch; small networks gain little from a second (default: every core)",
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def pick_device(name: str) -> torch.device:
    """Return the device; MissingError when cuda is asked for and absent."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise MissingError(
            f"--device cuda: torch {torch.__version__} finds no CUDA device; install a CUDA build "
            "of torch and the driver, or use --device cpu"
        )
    return torch.device("cuda")


def find_run(
    output: Path | None, resume: str | None, config: Path | None
) -> tuple[Path, Checkpoint | None]:
    """Return the run's folder and the checkpoint to go on from."""
    name = (config or DEMO_CONFIG).stem.removeprefix("demo_")
    folder = output or in_checkout("runs") / name
    if resume is None:
        return folder, None
    if resume == LAST:
        resume = str(folder / LAST)
    elif output is None:
        folder = Path(resume).parent
    elif output.resolve() != Path(resume).parent.resolve():
        raise InputError(
            f"--resume {resume} goes on in {Path(resume).parent}; leave out --output {output}"
        )
    return folder, load_checkpoint(resume)


def read_config(
    path: Path | None, overrides: Sequence[str], resumed: Checkpoint | None
) -> ExperimentConfig:
    """Return the run's config; InputError when a resumed network has another architecture."""
    if resumed is None or path is not None:
        config = configs.load(ExperimentConfig, path or DEMO_CONFIG, overrides)
    else:
        values = configs.merge_overrides(configs.to_dict(resumed.config), overrides)
        config = configs.from_dict(ExperimentConfig, values)
    if resumed is not None:
        _compare(resumed.config, config)
    return config


def _compare(saved: ExperimentConfig, config: ExperimentConfig) -> None:
    before, now = (dict(_flat(configs.to_dict(c))) for c in (saved, config))
    changed = [
        f"{key} {before.get(key)} -> {now.get(key)}" for key in now if before.get(key) != now[key]
    ]
    model = [change for change in changed if change.startswith("model.")]
    if model:
        raise InputError(f"the checkpoint to resume has another architecture: {', '.join(model)}")
    if changed:
        _log.warning("going on with other settings, not as uninterrupted: %s", ", ".join(changed))


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def build_trainer(
    config: ExperimentConfig, dataset: Dataset, output: Path, device: torch.device
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
    return Trainer(config, network, dataset, output, device)


if __name__ == "__main__":
    sys.exit(run(main))
