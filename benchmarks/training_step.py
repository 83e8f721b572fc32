"""The selective scan's share of a training step: ``python benchmarks/training_step.py``.

A step of the demo's network and one of the full network, on random pixels, with the portable scan
and with the native one in turns. The step is that of train/engine.py; loading of data is not part
of it. The least of a few steps counts. ``--record`` writes benchmarks/results/training_step.json
and the table of plugins/README.md.
"""
# ruff: noqa: E402 (the import path comes first)

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in train/main.py

import torch
from torch import Tensor

from benchmarks.readme import markdown, replace_table
from mambapro import config as configs
from mambapro import native
from mambapro.cli import add_common_arguments, print_json_line, run, start_logging
from mambapro.config import ExperimentConfig
from mambapro.contract import EXIT_DONE
from mambapro.environment import environment
from mambapro.files import write_json
from mambapro.model import mamba
from mambapro.model.network import Heads, MambaPro
from mambapro.ops import selective_scan as scan
from train.losses import total_loss
from train.optimiser import build_optimiser

RESULT = ROOT / "benchmarks" / "results" / "training_step.json"
INSTANCES: Final = 4
"""Triplets of an identity in a batch."""
HEADER: Final = ("a training step", "scan", "step, s", "scan, s", "share of the scan")


@dataclass(frozen=True)
class Setting:
    """A network and how much of it is measured."""

    name: str
    config: str
    triplets: int
    steps: int


SETTINGS: Final = (
    Setting("demo, 32 triplets", "demo_person.yaml", 32, 5),
    Setting("full network, 8 triplets", "rgbnt201.yaml", 8, 2),
)


class Stopwatch:
    """Adds up the seconds that are spent in the functions it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, timed; a backward pass runs in another thread, one at a time."""

        def timed(*arguments: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and record it if asked to."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    native.require_library("torch")
    torch.set_num_threads(arguments.threads or os.cpu_count() or 1)
    settings = SETTINGS[:1] if arguments.quick else SETTINGS
    results = [measure(setting) for setting in settings]
    print(markdown(HEADER, list(table(results))))
    if arguments.record:
        write_json(RESULT, {"environment": environment(), "settings": results})
        replace_table(ROOT / "plugins" / "README.md", "step", HEADER, list(table(results)))
    if arguments.json:
        print_json_line({"settings": results})
    return EXIT_DONE


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description="Measure the scan's share of a training step.")
    parser.add_argument("--threads", type=int, help="threads of torch (default: number of cores)")
    parser.add_argument(
        "--quick", action="store_true", help="the demo's network only (default: both)"
    )
    parser.add_argument(
        "--record",
        action="store_true",
        help="write benchmarks/results/training_step.json and plugins/README.md (default: off)",
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def measure(setting: Setting) -> dict[str, Any]:
    """Return the seconds of a step and of its scans, portable and native."""
    step = training_step(setting)
    step()  # allocates what the first step allocates
    best: dict[str, tuple[float, float]] = {}
    for _ in range(setting.steps):
        for name, value in {"portable": "off", "native": "on"}.items():
            taken = timed_step(step, value)
            best[name] = min(taken, best.get(name, taken))
    return {
        "name": setting.name,
        **{
            name: {"step_s": total, "scan_s": inside, "share": inside / total}
            for name, (total, inside) in best.items()
        },
    }


def timed_step(step: Callable[[], None], switch: str) -> tuple[float, float]:
    """Return the seconds of a whole step and of the scans in it, forward and backward."""
    watch = Stopwatch()
    before = os.environ.get(native.SWITCH, "on")
    forward = mamba.selective_scan  # type: ignore[attr-defined]  # where the network looks
    backward = scan.selective_scan_backward
    try:
        os.environ[native.SWITCH] = switch
        setattr(mamba, "selective_scan", watch.wrap(forward))  # noqa: B010 (mypy: reassigned)
        setattr(scan, "selective_scan_backward", watch.wrap(backward))  # noqa: B010
        start = time.perf_counter()
        step()
        return time.perf_counter() - start, watch.seconds
    finally:
        os.environ[native.SWITCH] = before
        setattr(mamba, "selective_scan", forward)  # noqa: B010
        setattr(scan, "selective_scan_backward", backward)  # noqa: B010


def training_step(setting: Setting) -> Callable[[], None]:
    """Return a call that updates the weights once, always on the same random pixels."""
    config = configs.load(ExperimentConfig, ROOT / "configs" / setting.config)
    torch.manual_seed(0)
    network, heads = MambaPro(config.model), Heads(config.model, setting.triplets // INSTANCES)
    optimiser = build_optimiser((network, heads), config.train)
    height, width = config.model.image_size
    pixels = torch.randn(3, setting.triplets, 3, height, width)
    camera = torch.zeros(setting.triplets, dtype=torch.int64)
    label: Tensor = torch.arange(setting.triplets) // INSTANCES

    def step() -> None:
        loss = total_loss(heads(network(pixels, camera)), label, config.train)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def table(results: Sequence[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Yield the cells of two lines a network."""
    for result in results:
        for name in ("portable", "native"):
            row = result[name]
            cells = f"{row['step_s']:.3g}", f"{row['scan_s']:.3g}", f"{row['share']:.0%}"
            yield result["name"], name, *cells


if __name__ == "__main__":
    sys.exit(run(main))
