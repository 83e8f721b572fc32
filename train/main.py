"""Train a network and evaluate it: ``python train/main.py``.

Several processes, on a GPU each or on CPU cores: ``torchrun --nproc-per-node N train/main.py``.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
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
    add_common_arguments,
    add_set_argument,
    print_json_line,
    run,
    start_logging,
)
from mambapro.config import ExperimentConfig
from mambapro.contract import EXIT_DONE
from mambapro.files import in_checkout
from mambapro.model.weights import Checkpoint, load_checkpoint
from train.distributed import World, joined
from train.engine import LAST
from train.evaluation import table
from train.experiment import read_config, run_experiment
from train.sweep import plain, run_sweep
from train.sweep import table as comparison

DEMO_CONFIG = in_checkout("configs/demo_person.yaml")


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the arguments say, print the table of the best network, return the exit code."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    with joined(arguments.device) as world:
        if not world.leads:
            logging.getLogger().setLevel(logging.WARNING)
        result = sweep(arguments, world) if arguments.sweep else train(arguments, world)
        if arguments.json and world.leads:
            print_json_line(result)
    return EXIT_DONE


def train(arguments: argparse.Namespace, world: World) -> dict[str, Any]:
    """Run one experiment and print its table; return what metrics.json says."""
    output, resumed = find_run(arguments.output, arguments.resume, arguments.config)
    config = read_config(
        arguments.config or DEMO_CONFIG,
        arguments.set,
        resumed[0] if resumed else None,
        given=arguments.config is not None,
    )
    rankings, result = run_experiment(config, output, world, resumed)
    if world.leads:
        print(table(rankings))
        print(
            f"untrained network: mAP {result['untrained_map']:.1%}; "
            f"best network (epoch {result['best_epoch']}): {result['checkpoint']}"
        )
    return result


def sweep(arguments: argparse.Namespace, world: World) -> dict[str, Any]:
    """Run the experiments of a sweep and print their comparison; return its figures."""
    given = [name for name in ("config", "resume") if getattr(arguments, name) is not None]
    if given:
        raise InputError(
            f"--sweep names its own configs and resumes by itself; leave out --{given[0]}"
        )
    path: Path = arguments.sweep
    output = arguments.output or in_checkout("runs/sweeps") / path.stem
    rows = run_sweep(path, arguments.set, output, world)
    if world.leads:
        print("\n".join(comparison(rows, plain)))
        print(f"runs and comparison.md: {output}")
    return rows


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
    add_set_argument(parser)
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
        "--sweep",
        type=Path,
        metavar="FILE",
        help="run every experiment of this YAML file and compare them; started again, it goes on "
        "(default: one run; with it --output is runs/sweeps/ and the file's name)",
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


def find_run(
    output: Path | None, resume: str | None, config: Path | None
) -> tuple[Path, tuple[Checkpoint, str] | None]:
    """Return the run's folder, and the checkpoint to go on from with its path."""
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
    return folder, (load_checkpoint(resume), resume)


if __name__ == "__main__":
    sys.exit(run(main))
