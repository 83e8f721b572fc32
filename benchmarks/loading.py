"""How fast training triplets are read, decoded and augmented: ``python benchmarks/loading.py``.

Crops of the size of the real sets, rendered once, go through the loader of training: parts of the
work on one core, then whole batches with none, one and two processes, with and without the cache
of resized pictures. A network's step must not wait for them: the last column says how long the
loader takes for a batch of 64. ``--record`` writes benchmarks/results/loading.json and the table of
docs/reproduce.md.
"""

# ruff: noqa: E402 (the import path comes first)

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

import cv2
import numpy as np
import torch

from benchmarks.readme import markdown, replace_table
from mambapro import config as configs
from mambapro.cli import add_common_arguments, print_json_line, run, start_logging
from mambapro.config import ExperimentConfig
from mambapro.contract import EXIT_DONE
from mambapro.datasets import Dataset, load_triplet, read_dataset
from mambapro.environment import environment
from mambapro.files import in_checkout, write_json
from mambapro.preprocess import stack
from mambapro.synthetic.datasets import write_dataset
from train.augment import augment
from train.data.triplets import TrainTriplets, train_loader
from train.sampler import IdentitySampler

RESULT: Final = ROOT / "benchmarks" / "results" / "loading.json"
HEADER: Final = ("triplets from", "processes", "triplets a second", "batch of 64, s")
SECONDS: Final = 6.0
"""How long each setting is measured."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and record them if asked to."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    folder = in_checkout("data/synthetic/loading")
    write_dataset(
        "rgbnt201", folder, identities=(32, 1), images_per_camera=2, cameras=4, size=(256, 128)
    )
    dataset = read_dataset("rgbnt201", folder)
    parts = measure_parts(dataset)
    for name, milliseconds in parts.items():
        print(f"{name:<28}{milliseconds:8.2f} ms a triplet, one core")
    results = [
        measure_loader(dataset, cached, workers)
        for cached in (False, True)
        for workers in (0, 1, 2)
    ]
    print(markdown(HEADER, list(table(results))))
    figures = {"parts_ms": parts, "loaders": results}
    if arguments.record:
        write_json(RESULT, {"environment": environment(), **figures})
        replace_table(ROOT / "docs" / "reproduce.md", "loading", HEADER, list(table(results)))
    if arguments.json:
        print_json_line(figures)
    return EXIT_DONE


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description="Measure reading and augmenting of triplets.")
    parser.add_argument(
        "--record",
        action="store_true",
        help="write benchmarks/results/loading.json and docs/reproduce.md (default: off)",
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def recipe(cached: bool, workers: int) -> ExperimentConfig:
    """Return the recipe of RGBNT201 with another way of loading."""
    config = configs.load(ExperimentConfig, ROOT / "configs" / "rgbnt201.yaml")
    data = dataclasses.replace(config.data, cache_mb=4096 if cached else 0, workers=workers)
    return dataclasses.replace(config, data=data)


def measure_parts(dataset: Dataset) -> dict[str, float]:
    """Return milliseconds a triplet of decoding, of resizing and of augmenting, on one core."""
    cv2.setNumThreads(1)
    config, records = recipe(cached=False, workers=0), dataset.train.records[:64]
    size, random = config.model.image_size, np.random.default_rng(0)
    triplets = [load_triplet(record) for record in records]
    pictures = [stack(triplet, size)[0] for triplet in triplets]
    return {
        "decode": per_item(load_triplet, records),
        "resize": per_item(lambda triplet: stack(triplet, size), triplets),
        "augment": per_item(lambda picture: augment(picture, config.data, random), pictures),
    }


def per_item(function: Callable[[Any], object], items: Sequence[Any]) -> float:
    """Return the least mean milliseconds an item of a few passes."""
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for item in items:
            function(item)
        best = min(best, (time.perf_counter() - start) / len(items))
    return 1e3 * best


def measure_loader(dataset: Dataset, cached: bool, workers: int) -> dict[str, Any]:
    """Return triplets a second of the loader of training."""
    config = recipe(cached, workers)
    triplets = TrainTriplets(dataset.train, config)
    sampler = IdentitySampler(triplets.labels, config.train.batch_size, config.train.instances, 1)
    loader = train_loader(triplets, sampler, torch.device("cpu"))
    count, started = 0, 0.0
    for epoch in range(1, 10_000):
        sampler.epoch = epoch
        for batch in loader:
            if not started:  # the first batch waits for the processes to start
                started = time.perf_counter()
                continue
            count += len(batch.label)
            seconds = time.perf_counter() - started
            if seconds > SECONDS:
                return {"cached": cached, "workers": workers, "triplets_per_s": count / seconds}
    raise AssertionError


def table(results: Sequence[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Yield the cells of a line a setting."""
    for r in results:
        rate = r["triplets_per_s"]
        source = "memory, resized" if r["cached"] else "JPEG files"
        yield source, str(r["workers"]), f"{rate:.0f}", f"{64 / rate:.2f}"


if __name__ == "__main__":
    sys.exit(run(main))
