"""What each part of a network costs: ``python train/accounting.py [--config FILE]``.

Parameters; multiply-adds of one triplet in matrix products, convolutions and the selective scan;
and the memory of training: weights, gradients and Adam's two moments, and the activations that the
backward pass needs, measured in a training step on the CPU in float32.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
# Before torch loads; see train/main.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from mambapro import config as configs
from mambapro.cli import (
    add_common_arguments,
    add_set_argument,
    print_json_line,
    run,
    start_logging,
)
from mambapro.config import ExperimentConfig, ModelConfig
from mambapro.contract import EXIT_DONE, MODALITIES
from mambapro.files import in_checkout
from mambapro.model.network import MambaPro

DEFAULT_CONFIG: Final = in_checkout("configs/rgbnt201.yaml")
HEADER: Final = (
    "part", "parameters, M", "trained, M", "multiply-adds, G", "share", "state, MB",
    "activations, MB",
)  # fmt: skip
TRIPLETS: Final = 2
"""Triplets of the step in which activations are measured."""
EVERYTHING: Final = "Global"
"""What PyTorch calls the caller of the outermost module."""
STATE_COPIES: Final = 4
"""A trained weight is kept with its gradient and Adam's two moments."""

PARTS: Final = {
    "attn": "CLIP: attention",
    "mlp": "CLIP: MLP",
    "adapter": "PFA",
    "prompts": "SRP",
    "in_proj": "MA: projections",
    "out_proj": "MA: projections",
    "conv": "MA: convolutions",
    "ssm": "MA: scan and its parameters",
    "reverse_ssm": "MA: scan and its parameters",
    "aggregation": "MA: the rest",
}
"""A step of a module's path -> the part it belongs to; the first in this order counts."""
REST: Final = "CLIP: patches, tokens, norms, projection"


@dataclasses.dataclass
class Part:
    """What one part costs."""

    parameters: int = 0
    trained: int = 0
    """Parameters that learn."""
    multiply_adds: int = 0
    """Of one triplet."""
    activations_bytes: int = 0
    """Kept for the backward pass, a triplet."""

    @property
    def state_bytes(self) -> int:
        """Weights, and what training keeps for those that learn; float32."""
        return 4 * (self.parameters + (STATE_COPIES - 1) * self.trained)

    def __add__(self, other: Part) -> Part:
        ours, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
        return Part(*(a + b for a, b in zip(ours, theirs, strict=True)))


def main(argv: Sequence[str] | None = None) -> int:
    """Count, print the table, return the exit code."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    config = configs.load(ExperimentConfig, arguments.config, arguments.set)
    parts = account(config.model)
    print("\n".join("".join(f"{cell:>18}" if i else f"{cell:<42}" for i, cell in enumerate(row))
                    for row in (HEADER, *table(parts))))  # fmt: skip
    if arguments.json:
        print_json_line(result(parts))
    return EXIT_DONE


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description="Count what each part of a network costs.")
    parser.add_argument(
        "--config",
        type=Path,
        default=DEFAULT_CONFIG,
        metavar="FILE",
        help=f"YAML of the network (default: {DEFAULT_CONFIG})",
    )
    add_set_argument(parser)
    add_common_arguments(parser)
    return parser.parse_args(argv)


def account(config: ModelConfig) -> dict[str, Part]:
    """Return what each part of a network costs, largest paths first as in :data:`PARTS`."""
    with torch.device("meta"):
        shapes = MambaPro(config)  # counting needs no numbers
    parts = {name: Part() for name in (*dict.fromkeys(PARTS.values()), REST)}
    for name, parameter in shapes.named_parameters():
        part = parts[part_of(name)]
        part.parameters += parameter.numel()
        part.trained += parameter.numel() if parameter.requires_grad else 0
    for name, count in multiply_adds(shapes).items():
        parts[part_of(name)].multiply_adds += count
    torch.manual_seed(0)
    for name, size in saved_bytes(MambaPro(config)).items():
        parts[part_of(name)].activations_bytes += size // TRIPLETS
    return {name: part for name, part in parts.items() if part != Part()}


def part_of(path: str) -> str:
    """Return the part that a module or parameter belongs to by its path."""
    steps = path.split(".")
    # Attention's own in_proj and out_proj are found as attn first.
    return next((part for step, part in PARTS.items() if step in steps), REST)


def inputs(config: ModelConfig, triplets: int, device: str) -> tuple[Tensor, Tensor]:
    """Return pixels and cameras for a pass through the network."""
    pixels = torch.rand(len(MODALITIES), triplets, 3, *config.image_size, device=device)
    return pixels, torch.zeros(triplets, dtype=torch.int64, device=device)


def multiply_adds(network: MambaPro) -> dict[str, int]:
    """Return the multiply-adds of one triplet in each module itself, by its path."""
    scan = {torch.ops.mambapro.selective_scan: scan_operations}
    counter = FlopCounterMode(display=False, custom_mapping=scan)
    with counter:  # with gradients: torch 2.13 tracks modules by them
        network.eval()(*inputs(network.config, 1, "meta"))
    # PyTorch counts a multiply-add as two operations.
    within = {name: sum(found.values()) // 2 for name, found in counter.get_flop_counts().items()}
    del within[EVERYTHING]
    own = Counter(within)
    for name, count in within.items():
        if (caller := nearest(name, within)) is not None:
            own[caller] -= count
    return {name: count for name, count in own.items() if count > 0}


def nearest(path: str, modules: Container[str]) -> str | None:
    """Return the module that called ``path``: lists of modules are never called themselves."""
    while path := path.rpartition(".")[0]:
        if path in modules:
            return path
    return None


def scan_operations(
    u: Sequence[int], delta: Sequence[int], A: Sequence[int], *others: Any, **kwargs: Any
) -> int:
    """Return twice the multiply-adds of a scan of u (G*B, L, D) with A (G, D, N).

    Each state of each step takes four: delta A, (delta u) B, the state's own and the read by C;
    each channel two more: delta u and D u. Exponentials are not counted.
    """
    rows, length, channels = u
    return 2 * rows * length * channels * (4 * A[-1] + 2)


def saved_bytes(network: MambaPro) -> dict[str, int]:
    """Return the bytes that a training step of a few triplets keeps, by the module's path.

    A tensor that several modules keep counts once, where it is kept first; weights do not count.
    """
    tracker, kept = ModuleTracker(), dict[int, int]()
    by_module: Counter[str] = Counter()
    alive = []  # memory that is freed and used again would hide what is kept
    weights = {p.untyped_storage().data_ptr() for p in (*network.parameters(), *network.buffers())}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and storage.data_ptr() not in kept:
            kept[storage.data_ptr()] = storage.nbytes()
            by_module[max(tracker.parents - {EVERYTHING}, key=len)] += storage.nbytes()
        alive.append(tensor)
        return tensor

    with tracker, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        features = network.train()(*inputs(network.config, TRIPLETS, "cpu"))
    del features
    return dict(by_module)


def table(parts: dict[str, Part]) -> Iterator[tuple[str, ...]]:
    """Yield the cells of a line a part, the sum last."""
    total = sum(parts.values(), Part())
    for name, part in (*parts.items(), ("all", total)):
        yield (
            name,
            f"{part.parameters / 1e6:.2f}",
            f"{part.trained / 1e6:.2f}",
            f"{part.multiply_adds / 1e9:.2f}",
            f"{part.multiply_adds / max(1, total.multiply_adds):.1%}",
            f"{part.state_bytes / 1e6:.0f}",
            f"{part.activations_bytes / 1e6:.0f}",
        )


def result(parts: dict[str, Part]) -> dict[str, Any]:
    """Return what ``--json`` says."""
    total = sum(parts.values(), Part())
    rows = {**parts, "all": total}
    return {
        name: {**dataclasses.asdict(part), "state_bytes": part.state_bytes}
        for name, part in rows.items()
    }


if __name__ == "__main__":
    sys.exit(run(main))
