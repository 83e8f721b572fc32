"""How long an embedding takes, beside what the machine could do: ``python benchmarks/latency.py``.

The full-size network with random weights, in one run and in turns:

- ``paper``: separate passes of the tower, one a modality, a sequential scan, eager PyTorch
  (benchmarks/separate_passes.py); its embeddings are compared with ours before anything is timed;
- ``torch``: our stacked pass with the native scan, eager PyTorch;
- ``fp32``, ``int8``: the model files in ONNX Runtime with our operator, INT8 for x86;
- ``fp32 limit``, ``int8 limit``: the limits. Each is the list of matrix products of that very
  file, of the same sizes and in the same kernels, as a graph of nothing else in the same ONNX
  Runtime with the same threads (benchmarks/products.py). Attention in one node counts as its two
  products in ONNX Runtime's kernel, a product with SiLU as its product there, which takes longer
  than ours. Products of the INT8 file that are float, attention's and the scan's projections, are
  float in its limit too. Bias, activation, scan, everything between the products, is what a file
  takes beyond its limit.

A time is the least of a path's calls. ``--record`` writes benchmarks/results/latency.json, README's
table and the profile in docs/latency.md.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in train/main.py

import numpy as np
import torch

from benchmarks.products import Node, Products, profile
from benchmarks.readme import markdown, replace_table
from benchmarks.separate_passes import SeparatePasses
from calibration.ranges import observe, ranges
from export.layers import int8_layers
from export.model_file import open_source, save
from export.qdq import insert, without_gemm
from export.to_onnx import export, random_network
from export.token_functions import ADD_NORM, ATTENTION, NORM, PRODUCT_SILU, SILU
from export.torch_engine import TorchEngine
from mambapro import config as configs
from mambapro import native
from mambapro.cli import CheckError, add_common_arguments, print_json_line, run, start_logging
from mambapro.config import ExperimentConfig
from mambapro.contract import CAMERA, EXIT_DONE, IMAGES, MODALITY_MASK
from mambapro.environment import environment
from mambapro.files import in_checkout, write_json
from mambapro.model.network import MambaPro
from runtime.engines import OnnxEngine

RESULT: Final = in_checkout("benchmarks/results/latency.json")
FILES: Final = ("fp32", "int8")
ROUNDS: Final = 8
ENOUGH_S: Final = 4.0
"""A path that has been measured for so long is not called again."""
PAUSE_S: Final = 0.25
"""Idle workers of torch spin for up to 0.2 s after their last work."""
SAME: Final = 1e-4
"""Largest difference between the embeddings of ``paper`` and ours: sums in another order."""
HEADER: Final = (
    "threads", "batch", "paper", "PyTorch", "FP32", "INT8", "FP32 limit", "INT8 limit",
    "FP32 over limit", "INT8 over limit", "INT8 speedup", "speedup over paper",
)  # fmt: skip
PROFILE_HEADER: Final = ("file", "part", "ms", "share")
PARTS: Final = {
    "matrix products": lambda node: node.is_product,
    "QuickGELU, SiLU": lambda node: node.kind in ("QuickGelu", "Sigmoid"),
    "products with SiLU": lambda node: node.kind == PRODUCT_SILU,
    "attention in one node": lambda node: node.kind == ATTENTION,
    "SiLU and quantising": lambda node: node.kind == SILU,
    "LayerNorm and quantising": lambda node: node.kind in (NORM, ADD_NORM),
    "quantising": lambda node: node.kind in ("QuantizeLinear", "DequantizeLinear"),
    "softmax": lambda node: node.kind == "Softmax",
    "LayerNorm": lambda node: node.kind == "LayerNormalization",
    "sums and factors": lambda node: node.kind in ("Add", "Mul", "Sub", "Div"),
    "selective scan": lambda node: node.kind == "SelectiveScan",
    "copies": lambda node: node.kind in ("Transpose", "Concat", "Split", "Slice", "ReorderInput",
                                         "ReorderOutput", "Gather", "Expand", "Tile"),
}  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """The network that is measured, in all its forms."""

    config: ExperimentConfig
    network: MambaPro
    files: dict[str, Path]

    def inputs(self, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return random crops, all modalities present, of an unknown camera."""
        shape = batch, 3, *self.config.model.image_size, 3
        images = np.random.default_rng(batch).integers(0, 256, shape, np.uint8)
        return images, np.ones((batch, 3), np.float32), np.full(batch, -1)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and record them if asked to."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    native.require_library("torch")
    native.require_library("onnxruntime")
    subject = prepare(arguments.config, arguments.folder)
    difference = check_same(subject)
    profiles = profile_files(subject, arguments.batches, max(arguments.threads), arguments.folder)
    measured = [
        row
        for threads in arguments.threads
        for row in measure(subject, profiles, arguments.batches, threads, arguments.rounds)
    ]
    bytes_ = {name: path.stat().st_size for name, path in subject.files.items()}
    parts = {name: breakdown(nodes[0]) for name, nodes in profiles.items()}
    result = {**headline(measured), "int8_bytes_over_fp32": bytes_["int8"] / bytes_["fp32"]}
    print(markdown(HEADER, list(map(table_row, measured))), end="\n\n")
    print(markdown(PROFILE_HEADER, profile_rows(parts)))
    if arguments.record:
        facts = {"config": arguments.config.name, "bytes": bytes_, "paper_difference": difference}
        write_json(
            RESULT,
            {"environment": environment(), **facts, **result, "rows": measured, "profile": parts},
        )
        replace_table(in_checkout("README.md"), "latency", HEADER, list(map(table_row, measured)))
        page = in_checkout("docs/latency.md")
        replace_table(page, "profile", PROFILE_HEADER, profile_rows(parts))
    if arguments.json:
        print_json_line(result)
    return EXIT_DONE


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        description="Measure an embedding beside the machine's limits."
    )
    parser.add_argument(
        "--config", type=Path, default=in_checkout("configs/rgbnt201.yaml"), metavar="FILE",
        help="YAML file of the network (default: configs/rgbnt201.yaml, the full size)",
    )  # fmt: skip
    parser.add_argument(
        "--folder", type=Path, default=in_checkout("runs/latency"),
        help="folder for the model files, which are used again (default: runs/latency)",
    )  # fmt: skip
    parser.add_argument(
        "--batches", type=int, nargs="+", default=[1, 4, 16], metavar="N",
        help="triplets in one call, number (default: 1 4 16)",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], metavar="N",
        help="threads of every path, number (default: 1 2)",
    )  # fmt: skip
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, metavar="N",
        help=f"calls of each path at most, number (default: {ROUNDS})",
    )  # fmt: skip
    parser.add_argument(
        "--record", action="store_true",
        help="write benchmarks/results/latency.json and the tables (default: off)",
    )  # fmt: skip
    add_common_arguments(parser)
    return parser.parse_args(argv)


# --- what is measured ----------------------------------------------------------------------------


def prepare(config_path: Path, folder: Path) -> Subject:
    """Return the network with random weights; writes its model files where they are not there."""
    config = configs.load(ExperimentConfig, config_path)
    torch.manual_seed(config.train.seed)
    network = random_network(config)
    files = {name: folder / f"{config_path.stem}.{name}.onnx" for name in FILES}
    folder.mkdir(parents=True, exist_ok=True)
    if not files["fp32"].exists():
        export(config, network, files["fp32"])
    subject = Subject(config, network, files)
    if not files["int8"].exists():
        write_int8(subject)
    return subject


def write_int8(subject: Subject) -> None:
    """Quantise for the CPU on one random triplet: what a file costs does not depend on ranges."""
    model, spec = open_source(subject.files["fp32"])
    model = without_gemm(model)
    layers = int8_layers(model)
    taps = list({layer.activation: layer.tap for layer in layers}.values())
    found = ranges(observe(model, taps, [subject.inputs(1)]), "max", 100.0)
    facts = {"target": "cpu", "source": "random pixels"}
    spec = spec.replace(precision="int8", calibration=facts)
    save(insert(model, layers, found, "cpu"), spec, subject.files["int8"])


def check_same(subject: Subject) -> float:
    """Return the largest difference of ``paper`` to ours; CheckError when it is too large."""
    tensors = [torch.from_numpy(x) for x in subject.inputs(2)]
    with torch.inference_mode():
        expected = subject.network.embed(*tensors)
    embedded = SeparatePasses(subject.network).embed(*tensors)
    difference = float((embedded - expected).abs().max())
    if not difference <= SAME:
        raise CheckError(f"the paper's formulation differs from ours by {difference:.1e}")
    return difference


def profile_files(
    subject: Subject, batches: Sequence[int], threads: int, folder: Path
) -> dict[str, list[list[Node]]]:
    """Return, for each file, the nodes that run at each batch size."""
    names = IMAGES, MODALITY_MASK, CAMERA
    feeds = [dict(zip(names, subject.inputs(batch), strict=True)) for batch in batches]
    return {
        name: profile(path, feeds, threads, folder / "profile")
        for name, path in subject.files.items()
    }


# --- measuring -----------------------------------------------------------------------------------


def measure(
    subject: Subject,
    profiles: dict[str, list[list[Node]]],
    batches: Sequence[int],
    threads: int,
    rounds: int,
) -> list[dict[str, Any]]:
    """Return a row for each batch size."""
    torch.set_num_threads(threads)
    biggest = max(batches)
    ours = TorchEngine(subject.config, subject.network, max_batch=biggest)
    paper = SeparatePasses(subject.network)
    engines = {
        name: OnnxEngine(path, threads=threads, max_batch=biggest)
        for name, path in subject.files.items()
    }
    products = {name: products_of(nodes[0]) for name, nodes in profiles.items()}
    limits = {name: Products(nodes, threads) for name, nodes in products.items()}
    rows = []
    for index, batch in enumerate(batches):
        inputs = subject.inputs(batch)
        tensors = [torch.from_numpy(x) for x in inputs]
        calls: dict[str, Callable[[], object]] = {
            "paper": lambda: paper.embed(*tensors),  # noqa: B023 (called in this round)
            "torch": lambda: ours.embed(*inputs),  # noqa: B023
        }
        for name, engine in engines.items():
            nodes = products_of(profiles[name][index])
            calls[name] = functools.partial(engine.embed, *inputs)
            calls[f"{name} limit"] = limits[name].bind(nodes)
        rows.append(row(threads, batch, least(calls, rounds)))
    return rows


def products_of(nodes: Sequence[Node]) -> list[Node]:
    """Return the matrix products among ``nodes`` and within them."""
    return [product for node in nodes for product in node.products]


def least(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Call every path in turns; return the least milliseconds of each."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            if sum(taken[name]) >= ENOUGH_S:
                continue
            start = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - start)
            if name in ("paper", "torch"):
                time.sleep(PAUSE_S)
    return {name: 1e3 * min(times) for name, times in taken.items()}


def row(threads: int, batch: int, ms: dict[str, float]) -> dict[str, Any]:
    """Return times and ratios: over a limit, or slower over faster."""
    return {
        "threads": threads,
        "batch": batch,
        "ms": ms,
        "fp32_over_limit": ms["fp32"] / ms["fp32 limit"],
        "int8_over_limit": ms["int8"] / ms["int8 limit"],
        "int8_speedup": ms["fp32"] / ms["int8"],
        "speedup_over_paper": ms["paper"] / ms["fp32"],
        "torch_over_fp32": ms["torch"] / ms["fp32"],
    }


def headline(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the ratios of one triplet on the most threads."""
    best = min(rows, key=lambda row: (row["batch"], -row["threads"]))
    names = "fp32_over_limit", "int8_over_limit", "int8_speedup", "speedup_over_paper"
    return {name: best[name] for name in names}


def breakdown(nodes: Sequence[Node]) -> dict[str, float]:
    """Return the milliseconds of each part of one run."""
    spent: dict[str, float] = defaultdict(float)
    for node in nodes:
        part = next((name for name, holds in PARTS.items() if holds(node)), "all others")
        spent[part] += node.milliseconds
    return dict(sorted(spent.items(), key=lambda part: -part[1]))


# --- tables --------------------------------------------------------------------------------------


def table_row(row: dict[str, Any]) -> tuple[str, ...]:
    """Return one row's cells; times in milliseconds."""
    ratios = [row[name] for name in ("fp32_over_limit", "int8_over_limit", "int8_speedup",
                                     "speedup_over_paper")]  # fmt: skip
    ms = [row["ms"][name] for name in ("paper", "torch", "fp32", "int8", "fp32 limit",
                                       "int8 limit")]  # fmt: skip
    return (
        str(row["threads"]),
        str(row["batch"]),
        *(f"{value:.0f}" for value in ms),
        *(f"{value:.2f} x" for value in ratios),
    )


def profile_rows(parts: dict[str, dict[str, float]]) -> list[tuple[str, ...]]:
    """Return the cells of the profile, a line for each part of each file."""
    return [
        (name.upper(), part, f"{ms:.1f}", f"{ms / sum(spent.values()):.1%}")
        for name, spent in parts.items()
        for part, ms in spent.items()
    ]


if __name__ == "__main__":
    sys.exit(run(main))
