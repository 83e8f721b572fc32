"""Networks trained with and without modality dropout: ``python benchmarks/missing_modalities.py``.

Finishes the sweep configs/sweeps/missing_modalities.yaml (runs that are there are kept), then
ranks with every subset of modalities, in two ways: queries and gallery lack the same modalities,
or a camera died after the gallery was filled, so that only the queries lack some. Once more with
cameras that the network does not know. ``--record`` writes the figures and docs/reproduce.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch

from benchmarks.readme import markdown, replace_table
from mambapro import config as configs
from mambapro.cli import add_common_arguments, print_json_line, run, start_logging
from mambapro.contract import EXIT_DONE, MODALITIES, UNKNOWN_CAMERA
from mambapro.environment import environment
from mambapro.files import in_checkout, write_json
from mambapro.metrics import PROTOCOLS, evaluate, squared_distances
from mambapro.model.network import MambaPro
from mambapro.model.weights import load_checkpoint
from train.data.sources import open_dataset
from train.data.triplets import Pictures
from train.distributed import World
from train.engine import BEST
from train.evaluation import FUSED, SUBSETS, Subset
from train.sweep import SweepConfig, plan, run_sweep

SWEEP: Final = in_checkout("configs/sweeps/missing_modalities.yaml")
RESULT: Final = in_checkout("benchmarks/results/missing_modalities.json")
WAYS: Final = {
    "same": "same modalities missing everywhere",
    "queries": "missing in the queries alone",
    "unknown camera": "same, camera unknown",
}
BATCH: Final = 64


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is not trained yet, rank, print one table, and record it if asked to."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    run_sweep(SWEEP, [], arguments.folder, World(torch.device("cpu")))
    sweep = configs.load(SweepConfig, SWEEP)
    runs = list(plan(sweep, [], arguments.folder))
    rows = {row: mean([rank(r.folder / BEST) for r in runs if r.row == row]) for row in sweep.rows}
    lines = list(table(rows))
    print(markdown(header(rows), lines))
    if arguments.record:
        write_json(RESULT, {"environment": environment(), "seeds": sweep.seeds, "rows": rows})
        path = in_checkout("docs/reproduce.md")
        replace_table(path, "missing", header(rows), lines)
    if arguments.json:
        print_json_line(rows)
    return EXIT_DONE


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description="Compare networks when modalities are missing.")
    parser.add_argument(
        "--folder", type=Path, default=in_checkout("runs/sweeps") / SWEEP.stem, metavar="FOLDER",
        help="folder of the trained networks (default: runs/sweeps/missing_modalities)",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: every core)")
    parser.add_argument(
        "--record",
        action="store_true",
        help="write benchmarks/results and docs/reproduce.md (default: off)",
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def rank(path: Path) -> dict[str, dict[str, float]]:
    """Return the mAP of a checkpoint on its test split: way -> subset -> mAP, 0 to 1."""
    checkpoint = load_checkpoint(path)
    dataset = open_dataset(checkpoint.config)
    labels, protocol = dataset.query.labels(), PROTOCOLS[dataset.layout]
    size = checkpoint.config.model.image_size
    pictures = Pictures(dataset.query.records, size, checkpoint.config.data.cache_mb)
    unknown = np.full_like(labels.camera, UNKNOWN_CAMERA)

    def score(queries: np.ndarray, gallery: np.ndarray) -> float:
        return evaluate(squared_distances(queries, gallery), labels, labels, protocol).map

    complete = embed(checkpoint.network, pictures, labels.camera, SUBSETS[0])
    figures: dict[str, dict[str, float]] = {way: {} for way in WAYS}
    for subset in SUBSETS:
        name = "+".join(subset)
        lacking = embed(checkpoint.network, pictures, labels.camera, subset)
        elsewhere = embed(checkpoint.network, pictures, unknown, subset)
        figures["same"][name] = score(lacking, lacking)
        figures["queries"][name] = score(lacking, complete)
        figures["unknown camera"][name] = score(elsewhere, elsewhere)
    return figures


@torch.inference_mode()
def embed(network: MambaPro, pictures: Pictures, camera: np.ndarray, subset: Subset) -> np.ndarray:
    """Return the embeddings (n, M*C) of all pictures, seen in the modalities of ``subset``."""
    mask = torch.tensor([[float(modality in subset) for modality in MODALITIES]])
    parts = []
    for start in range(0, len(pictures), BATCH):
        rows = range(start, min(start + BATCH, len(pictures)))
        images = torch.from_numpy(np.stack([pictures[row] for row in rows]))
        cameras = torch.from_numpy(camera[rows.start : rows.stop])
        parts.append(network.embed(images, mask.expand(len(rows), -1), cameras))
    return torch.cat(parts).numpy()


def mean(results: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Return the mean over seeds, with the mean over the six incomplete subsets."""
    figures = {
        way: {s: statistics.fmean(r[way][s] for r in results) for s in results[0][way]}
        for way in WAYS
    }
    for subsets in figures.values():
        subsets["incomplete"] = statistics.fmean(v for s, v in subsets.items() if s != FUSED)
    return figures


def header(rows: dict[str, Any]) -> tuple[str, ...]:
    """Return the table's head: a column a trained network."""
    return ("mAP, %", "modalities", *rows)


def table(rows: dict[str, dict[str, dict[str, float]]]) -> Iterator[tuple[str, ...]]:
    """Yield the cells of a line a way and subset, the mean over incomplete ones last."""
    for way, title in WAYS.items():
        for subset in next(iter(rows.values()))[way]:
            name = "mean of the six incomplete" if subset == "incomplete" else subset
            yield title, name, *(f"{100 * figures[way][subset]:.1f}" for figures in rows.values())


if __name__ == "__main__":
    sys.exit(run(main))
