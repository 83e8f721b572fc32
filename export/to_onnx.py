"""Write a checkpoint as an ONNX model file: ``python export/to_onnx.py``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
# Before torch loads; see train/main.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import onnx
import torch

from calibration.match_rates import (
    fuse_visits,
    pair_similarities,
    threshold_at_false_match_rate,
)
from export.evaluation_data import embed_test_split, read_test_split
from export.graph import DEFAULT_OPSET, OPSETS, build_graph
from export.torch_engine import TorchEngine
from export.verify import verify
from mambapro import config as configs
from mambapro.cli import InputError, add_common_arguments, print_json_line, run, start_logging
from mambapro.config import ExperimentConfig
from mambapro.datasets import Dataset
from mambapro.files import in_checkout, replacing
from mambapro.metrics import PROTOCOLS
from mambapro.model.folding import fold
from mambapro.model.network import MambaPro
from mambapro.model.weights import load_checkpoint
from mambapro.spec import MatchThreshold, ModelSpec, write_spec
from runtime.engines import Engine, OnnxEngine

DEFAULT_CHECKPOINT: Final = in_checkout("runs/person/best.pt")
DEFAULT_FALSE_MATCH_RATE: Final = 0.015

_log = logging.getLogger("export")


@dataclass(frozen=True)
class Exported:
    """What was written, for the table and the last line."""

    path: Path
    model: onnx.ModelProto
    spec: ModelSpec
    differences: dict[str, float]
    """Largest difference to PyTorch in each case that was tried."""
    trained_parameters: int
    """Parameters of the network before folding."""


def main(argv: Sequence[str] | None = None) -> int:
    """Export as the arguments say, print what was written, return the exit code."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    config, network = read_network(arguments)
    output = arguments.output or arguments.checkpoint.with_name("model.onnx")
    dataset = read_data(arguments, config)
    exported = export(config, network, output, arguments.opset, dataset, arguments.false_match_rate)
    print(table(exported))
    if arguments.json:
        print_json_line(summary(exported))
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        description="Write a checkpoint as one ONNX file that holds preprocessing, network and "
        "all facts about the model. The file appears only if it computes what PyTorch does."
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=DEFAULT_CHECKPOINT,
        metavar="FILE",
        help=f"checkpoint of train/main.py (default: {DEFAULT_CHECKPOINT})",
    )
    parser.add_argument(
        "--random-weights",
        type=Path,
        metavar="CONFIG",
        help="export an untrained network of this YAML instead of a checkpoint, for measurements "
        "of speed; needs --output (default: off)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="model file to write (default: model.onnx beside the checkpoint)",
    )
    parser.add_argument(
        "--opset",
        type=int,
        choices=OPSETS,
        default=DEFAULT_OPSET,
        help=f"ONNX operator set; higher ones exclude older runtimes (default: {DEFAULT_OPSET})",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="folder that contains the dataset whose test split the match threshold is chosen on "
        "(default: data.root of the checkpoint)",
    )
    parser.add_argument(
        "--false-match-rate",
        type=float,
        default=DEFAULT_FALSE_MATCH_RATE,
        metavar="SHARE",
        help="share of comparisons of different identities that may reach the match threshold, "
        f"0 to 1 (default: {DEFAULT_FALSE_MATCH_RATE})",
    )
    parser.add_argument(
        "--no-threshold",
        action="store_true",
        help="write no match threshold, for a machine without the dataset (default: off)",
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def read_network(arguments: argparse.Namespace) -> tuple[ExperimentConfig, MambaPro]:
    """Return the config and the network that the arguments name."""
    if arguments.random_weights is not None:
        if arguments.output is None:
            raise InputError("--random-weights needs --output, so that no real model is replaced")
        config = configs.load(ExperimentConfig, arguments.random_weights)
        torch.manual_seed(config.train.seed)
        return config, random_network(config)
    if not arguments.checkpoint.is_file():
        raise InputError(
            f"there is no checkpoint {arguments.checkpoint}; train one with train/main.py or give "
            "--checkpoint"
        )
    checkpoint = load_checkpoint(arguments.checkpoint)
    return checkpoint.config, checkpoint.network


def random_network(config: ExperimentConfig) -> MambaPro:
    """Return an untrained network that costs what a trained one does.

    The tracer leaves out biases of zero, with which training starts and does not end.
    """
    network = MambaPro(config.model).eval()
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.trunc_normal_(parameter, std=0.02)
    return network


def read_data(arguments: argparse.Namespace, config: ExperimentConfig) -> Dataset | None:
    """Return the data of the match threshold, None when none is wanted."""
    if arguments.no_threshold or arguments.random_weights is not None:
        _log.info("the file gets no match threshold")
        return None
    try:
        return read_test_split(config, arguments.data)
    except InputError as error:
        raise InputError(
            f"{error}. The match threshold needs the dataset: give --data, or --no-threshold"
        ) from error


def export(
    config: ExperimentConfig,
    network: MambaPro,
    output: Path,
    opset: int = DEFAULT_OPSET,
    dataset: Dataset | None = None,
    false_match_rate: float = DEFAULT_FALSE_MATCH_RATE,
) -> Exported:
    """Write ``network`` to ``output``; CheckError, and no file, if it differs from PyTorch.

    The match threshold is chosen on the test split of ``dataset``, by the exported file itself.
    """
    reference = TorchEngine(config, network)
    _log.info("tracing the network")
    model = build_graph(fold(network), opset)
    spec = reference.spec
    with replacing(output) as aside:
        _save(model, spec, aside)
        _log.info("comparing the file with PyTorch")
        engine = OnnxEngine(aside)
        differences = verify(engine, reference)
        if dataset is not None:
            _log.info("choosing the match threshold on %d queries", len(dataset.query))
            threshold = match_threshold(engine, dataset, false_match_rate)
            spec = spec.replace(match_threshold=threshold)
            _save(model, spec, aside)
    trained = sum(parameter.numel() for parameter in network.parameters())
    return Exported(output, model, spec, differences, trained)


def match_threshold(engine: Engine, dataset: Dataset, rate: float) -> MatchThreshold:
    """Choose the threshold on comparisons of what the stream compares: means of several crops."""
    (embedded,) = embed_test_split([engine], dataset)
    protocol = PROTOCOLS[dataset.layout]
    query, query_labels = fuse_visits(embedded.query, dataset.query.labels(), protocol)
    gallery, gallery_labels = fuse_visits(embedded.gallery, dataset.gallery.labels(), protocol)
    pairs = pair_similarities(query, gallery, query_labels, gallery_labels, protocol)
    source = f"visits of the test split of {dataset.layout}"
    return threshold_at_false_match_rate(*pairs, rate, source)


def parameter_count(model: onnx.ModelProto) -> int:
    """Return the number of floating-point values among the model's constants."""
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    floats = (weight for weight in model.graph.initializer if weight.data_type in kinds)
    return sum(int(np.prod(weight.dims)) for weight in floats)


def operator_counts(model: onnx.ModelProto) -> dict[str, int]:
    """Return how often each operator stands in the main graph, the most frequent first."""
    return dict(Counter(node.op_type for node in model.graph.node).most_common())


def table(exported: Exported) -> str:
    """Return size, parameters, operators and differences as lines of text."""
    model, spec = exported.model, exported.spec
    opsets = ", ".join(f"{item.domain or 'ai.onnx'} {item.version}" for item in model.opset_import)
    threshold = spec.match_threshold
    chosen = "none" if threshold is None else (
        f"cosine {threshold.cosine:.4f}: {threshold.false_match_rate:.2%} false matches, "
        f"{threshold.true_match_rate:.1%} true matches ({threshold.source})"
    )  # fmt: skip
    rows = [
        ("file", str(exported.path)),
        ("size", f"{exported.path.stat().st_size / 1e6:.1f} MB"),
        ("parameters", f"{parameter_count(model):,} (trained: {exported.trained_parameters:,})"),
        ("operator sets", opsets),
        ("embedding", f"{spec.embedding_dim} channels, space {spec.embedding_space[:12]}"),
        ("match threshold", chosen),
        ("nodes", f"{len(model.graph.node)}"),
        *((f"  {name}", str(count)) for name, count in operator_counts(model).items()),
        ("against PyTorch", "largest absolute difference"),
        *((f"  {value:.1e}", name) for name, value in exported.differences.items()),
    ]
    return "\n".join(f"{name:<20} {text}" for name, text in rows)


def summary(exported: Exported) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    threshold = exported.spec.match_threshold
    return {
        "output": str(exported.path),
        "bytes": exported.path.stat().st_size,
        "parameters": parameter_count(exported.model),
        "trained_parameters": exported.trained_parameters,
        "nodes": len(exported.model.graph.node),
        "operators": operator_counts(exported.model),
        "max_abs_difference": max(exported.differences.values()),
        "embedding_space": exported.spec.embedding_space,
        "match_threshold": None if threshold is None else configs.to_dict(threshold),
    }


def _save(model: onnx.ModelProto, spec: ModelSpec, path: Path) -> None:
    write_spec(model, spec)
    onnx.save(model, str(path))


if __name__ == "__main__":
    sys.exit(run(main))
