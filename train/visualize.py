"""Look inside a trained network: ``python train/visualize.py``.

Draws what the network looks at, how it ranks, how similar pairs are and where features lie, before
and after Mamba Aggregation, on the test split; and a page that shows all of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
# Before torch loads; see train/main.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

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
from mambapro.datasets import Dataset
from mambapro.files import in_checkout
from mambapro.model.weights import Checkpoint, load_checkpoint
from train.data.sources import open_dataset
from train.distributed import pick_device
from train.inspection.choice import choose
from train.inspection.page import write_page
from train.inspection.ranking_figure import draw_rank_lists
from train.inspection.relevance import METHODS
from train.inspection.relevance_figure import draw_relevance
from train.inspection.scatter_figure import draw_features
from train.inspection.similarity_figure import draw_similarities
from train.inspection.style import save
from train.inspection.views import Views, view

DEFAULT_CHECKPOINT = in_checkout("runs/person/best.pt")

_log = logging.getLogger("train")


def main(argv: Sequence[str] | None = None) -> int:
    """Draw as the arguments say, print what was written, return the exit code."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    output = arguments.output or arguments.checkpoint.with_name("figures")
    output.mkdir(parents=True, exist_ok=True)  # a folder that cannot be written, before the work
    checkpoint = read(arguments.checkpoint, arguments.set)
    dataset = open_dataset(checkpoint.config)
    _log.info("showing %s the test split", arguments.checkpoint)
    views = view(checkpoint, dataset, pick_device(arguments.device))
    figures = draw(checkpoint, views, output, arguments)
    result = summary(arguments.checkpoint, dataset, views, figures, output)
    write_page(output / "index.html", result)
    for stage, found in result["rankings"].items():
        print(f"{stage}: mAP {found['map']:.1%}, R-1 {found['r1']:.1%}")
    print(f"figures: {output / 'index.html'}")
    if arguments.json:
        print_json_line(result)
    return EXIT_DONE


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        description="Draw what a trained network looks at and how it ranks its test split.",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=DEFAULT_CHECKPOINT,
        metavar="FILE",
        help=f"checkpoint of train/main.py (default: {DEFAULT_CHECKPOINT})",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="folder of the pictures and index.html (default: figures beside the checkpoint)",
    )
    parser.add_argument(
        "--queries",
        type=positive,
        default=6,
        metavar="N",
        help="queries in rank lists and maps, from the worst ranked to the best (default: 6)",
    )
    parser.add_argument(
        "--identities",
        type=positive,
        default=16,
        metavar="N",
        help="identities whose features are drawn in the plane (default: 16)",
    )
    parser.add_argument(
        "--method",
        choices=tuple(METHODS),
        default="integrated-gradients",
        help="how the maps are made (default: integrated-gradients)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="draws the identities and starts t-SNE (default: 0)",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where the network runs; auto is cuda if there is one (default: auto)",
    )
    add_set_argument(parser)
    add_common_arguments(parser)
    return parser.parse_args(argv)


def positive(text: str) -> int:
    """Return a count from the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def read(path: Path, overrides: Sequence[str]) -> Checkpoint:
    """Return the checkpoint, its data settings changed; InputError says how to make one."""
    if not path.is_file():
        raise InputError(
            f"there is no checkpoint {path}; train one with train/main.py or give --checkpoint"
        )
    foreign = [change for change in overrides if not change.startswith("data.")]
    if foreign:
        raise InputError(f"--set changes where the data are, data.*, got {foreign[0]}")
    checkpoint = load_checkpoint(path)
    values = configs.merge_overrides(configs.to_dict(checkpoint.config), overrides)
    config = configs.from_dict(ExperimentConfig, values)
    return dataclasses.replace(checkpoint, config=config)


def draw(
    checkpoint: Checkpoint, views: Views, output: Path, arguments: argparse.Namespace
) -> dict[str, str]:
    """Write the pictures; return what each shows."""
    lists = choose(views, arguments.queries)
    figures = {
        "relevance": draw_relevance(checkpoint.network, views, lists, arguments.method),
        "ranks": draw_rank_lists(views, lists),
        "similarities": draw_similarities(views),
        "features": draw_features(views, arguments.identities, arguments.seed),
    }
    return {name: save(figure, output / f"{name}.png").name for name, figure in figures.items()}


def summary(
    checkpoint: Path, dataset: Dataset, views: Views, figures: dict[str, str], output: Path
) -> dict[str, Any]:
    """Return what ``--json`` and the page say."""
    return {
        "checkpoint": str(checkpoint),
        "layout": dataset.layout,
        "queries": len(views.query),
        "gallery": len(views.gallery),
        "rankings": {
            stage: {"map": ranking.map, "r1": ranking.rank(1)}
            for stage, ranking in views.rankings.items()
        },
        "figures": figures,
        "output": str(output),
    }


if __name__ == "__main__":
    sys.exit(run(main))
