"""Turn weights of others into a checkpoint of ours: ``python train/convert.py WEIGHTS``.

The authors' checkpoints, and CLIP's weights, then go wherever ours go: export, comparison, and as
train.pretrained. Training takes them without this step.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

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
from mambapro.model.names import authors_head_names
from mambapro.model.network import Heads, MambaPro
from mambapro.model.weights import load_pretrained, read_state, save_checkpoint


def main(argv: Sequence[str] | None = None) -> int:
    """Convert as the arguments say and print what was written."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    config = configs.load(ExperimentConfig, arguments.config, arguments.set)
    output = arguments.output or arguments.weights.with_suffix(".mambapro.pt")
    kind, identities = convert(arguments.weights, config, output)
    print(f"{output}: {kind} weights of {arguments.weights}, {identities} identities")
    if arguments.json:
        print_json_line({"checkpoint": str(output), "kind": kind, "identities": identities})
    return EXIT_DONE


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        description="Write one of the authors' checkpoints, or CLIP's weights, as a checkpoint "
        "that export/to_onnx.py and export/compare.py take."
    )
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="file to read")
    parser.add_argument(
        "--config",
        type=Path,
        required=True,
        metavar="FILE",
        help="YAML of the network and of its data, such as configs/rgbnt201.yaml",
    )
    add_set_argument(parser)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="checkpoint to write (default: WEIGHTS with the suffix .mambapro.pt)",
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def convert(weights: Path, config: ExperimentConfig, output: Path) -> tuple[str, int]:
    """Write ``weights`` as a checkpoint; return their kind and how many identities they know.

    What CLIP has not is drawn from train.seed.
    """
    state, ours = read_state(weights)
    if ours:
        raise InputError(f"{weights} is a checkpoint of train/main.py already")
    torch.manual_seed(config.train.seed)
    classifier = state.get(authors_head_names("tokens.classifier.weight", config.model.direct))
    identities = 0 if classifier is None else classifier.shape[0]
    network, heads = MambaPro(config.model), Heads(config.model, max(1, identities))
    kind = load_pretrained(network, weights, heads if identities else None)
    save_checkpoint(output, config, network, heads, {"source": str(weights)})
    return kind, identities


if __name__ == "__main__":
    sys.exit(run(main))
