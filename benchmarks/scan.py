"""The selective scan's paths side by side: ``python benchmarks/scan.py``.

One run measures ONNX Runtime's operator, the function body in the same file, the native torch
operator, the portable torch operator, the sequential reference and mambapy; and the machine's own
bounds: bytes a second over arrays of the scan's size, exponentials a second of the scan's own kind.
The last two torch paths are left out where they would take minutes. ``--record`` writes
benchmarks/results/scan.json and scan.png and the tables of plugins/README.md.
"""
# ruff: noqa: E402 (the import path comes first)

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    import mambapro  # noqa: F401 (before ONNX Runtime: it switches telemetry off)

import numpy as np
import onnx
import onnxruntime
import torch
from mambapy.mamba import MambaBlock, MambaConfig
from onnx import TensorProto, helper
from torch import Tensor

from benchmarks.readme import replace_table
from export.scan_function import NODE_ATTRIBUTES, scan_function
from mambapro import native
from mambapro.cli import MissingError, add_common_arguments, print_json_line, run, start_logging
from mambapro.contract import EXIT_DONE, OP_DOMAIN, OP_NAME, OP_VERSION
from mambapro.environment import environment
from mambapro.files import replacing, write_json
from mambapro.ops import selective_scan as scan

RESULTS = ROOT / "benchmarks" / "results"
BOUNDS = ROOT / "build" / "bin" / "mambapro_bounds"
NAMES: Final = ("u", "delta", "A", "B", "C", "D", "delta_bias")
SLOW_STEPS = 4096
"""Steps (rows times length) beyond which sequential torch and mambapy are left out."""
BLOCKS, BLOCK_S, MOST_CALLS = 5, 0.1, 40
"""Blocks of calls of each path, about how long one takes, and the most calls in it."""
ENOUGH_S = 1.5
"""A path that has been measured for so long needs no further block."""
PAUSE_S = 0.25
"""Idle workers spin for up to 0.2 s after their last work."""


@dataclass(frozen=True)
class Shape:
    """Sizes of one scan."""

    groups: int
    batch: int
    length: int
    channels: int = 1024
    states: int = 16

    @property
    def name(self) -> str:
        """Groups and batch, then length: "1x384" is one row."""
        return f"{self.rows}x{self.length}"

    @property
    def rows(self) -> int:
        """Sequences."""
        return self.groups * self.batch

    @property
    def bytes_moved(self) -> int:
        """What must be read and written once: u, delta, y, B, C; float32."""
        return 4 * self.rows * self.length * (3 * self.channels + 2 * self.states)

    @property
    def exponentials(self) -> int:
        """One a state for the decay, and one a channel for softplus."""
        return self.rows * self.length * self.channels * (self.states + 1)

    def inputs(self) -> dict[str, np.ndarray]:
        """Inputs with steps and decays of the size that training starts with.

        They lie as the runtimes lay them, on whole cache lines; NumPy promises 16 bytes.
        """
        random = np.random.default_rng(0)
        G, D, N = self.groups, self.channels, self.states
        u, delta = random.standard_normal((2, self.rows, self.length, D), np.float32)
        B, C = random.standard_normal((2, self.rows, self.length, N), np.float32)
        A = -np.broadcast_to(np.arange(1, N + 1, dtype=np.float32), (G, D, N)).copy()
        skip, bias = random.standard_normal((2, G, D), np.float32)
        arrays = (u, delta, A, B, C, skip, bias - 4)
        return {name: aligned(array) for name, array in zip(NAMES, arrays, strict=True)}


def aligned(array: np.ndarray) -> np.ndarray:
    """Copy to memory of torch, which is aligned to 64 bytes."""
    return torch.from_numpy(array).clone(memory_format=torch.contiguous_format).numpy()


INTER, INTRA = Shape(1, 1, 384), Shape(3, 1, 128)
"""The two kinds of scan of the full network, for one triplet."""
LENGTHS = [Shape(1, 1, length) for length in (128, 256, 512, 1024, 2048, 4096)]
BATCHES = [Shape(1, batch, 384) for batch in (2, 4, 8, 16)]
TRAINING = {
    "full network, 8 triplets": Shape(1, 8, 384),
    "demo, 32 triplets": Shape(1, 32, 96, 128, 4),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and record them if asked to."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    threads = arguments.threads or os.cpu_count() or 1
    torch.set_num_threads(threads)
    shapes = [INTER, INTRA, *([] if arguments.quick else [*LENGTHS, *BATCHES])]
    rows = [measure(shape, threads) for shape in shapes]
    training = [] if arguments.quick else [measure_training(*item) for item in TRAINING.items()]
    print_tables(rows, training)
    result = summary(rows)
    if arguments.record:
        record(rows, training, result, threads)
    if arguments.json:
        print_json_line(result)
    return EXIT_DONE


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description="Measure every path of the selective scan.")
    parser.add_argument(
        "--threads", type=int, help="threads of every path (default: the number of cores)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="the network's two shapes only (default: off)"
    )
    parser.add_argument(
        "--record",
        action="store_true",
        help="write benchmarks/results/scan.* and the tables of plugins/README.md (default: off)",
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


# --- paths ---------------------------------------------------------------------------------------


def paths(shape: Shape, threads: int) -> dict[str, Callable[[], object]]:
    """Return a call for each path that can do the shape in reasonable time."""
    inputs = shape.inputs()
    tensors = [torch.from_numpy(inputs[name]) for name in NAMES]
    model = scan_model()
    operator = session(model, threads, native.require_library("onnxruntime"))
    function = session(model, threads, None)
    torch_native = scan._load_native(native.require_library("torch"))
    assert torch_native is not None
    calls: dict[str, Callable[[], object]] = {
        "operator": bound_run(operator, inputs),
        "torch native": lambda: torch_native.scan_forward(*tensors),
        "function": bound_run(function, inputs),
        "torch portable": lambda: scan._scan_portable(*tensors),
    }
    if shape.rows * shape.length <= SLOW_STEPS:
        calls["torch sequential"] = lambda: scan.selective_scan_reference(*tensors)
        calls["mambapy"] = mambapy_scan(shape, tensors)
    return calls


def scan_model() -> onnx.ModelProto:
    """Return a model of one node with its function body, as export writes it."""
    carried = dict.fromkeys(("u", "delta", "y"), ("rows", "L", "D"))
    carried |= dict.fromkeys(("B", "C"), ("rows", "L", "N"))
    sizes = {**carried, "A": ("G", "D", "N"), "D": ("G", "D"), "delta_bias": ("G", "D")}
    values = {k: helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in sizes.items()}
    node = helper.make_node(OP_NAME, NAMES, ["y"], domain=OP_DOMAIN, **NODE_ATTRIBUTES)
    graph = helper.make_graph([node], "scan", [values[name] for name in NAMES], [values["y"]])
    imports = [helper.make_opsetid("", 18), helper.make_opsetid(OP_DOMAIN, OP_VERSION)]
    return helper.make_model(
        graph, opset_imports=imports, ir_version=10, functions=[scan_function(18)]
    )


def session(
    model: onnx.ModelProto, threads: int, library: Path | None
) -> onnxruntime.InferenceSession:
    """Open the model with the operator, or with its function body."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if library:
        options.register_custom_ops_library(str(library))
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def bound_run(
    session: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray]
) -> Callable[[], object]:
    """Return a call that reads the inputs where they are and writes y where it was before."""
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_cpu_input(name, array)
    y = aligned(inputs["u"])
    binding.bind_output("y", "cpu", 0, y.dtype, y.shape, y.ctypes.data)

    def call() -> np.ndarray:
        session.run_with_iobinding(binding)
        return y

    return call


def mambapy_scan(shape: Shape, tensors: Sequence[Tensor]) -> Callable[[], Tensor]:
    """Return mambapy's parallel scan, called once a group."""
    block = MambaBlock(MambaConfig(d_model=shape.channels, n_layers=1, expand_factor=1))
    u, delta, A, B, C, D, bias = tensors

    def call() -> Tensor:
        outputs = []
        with torch.no_grad():
            for g, part in enumerate(torch.arange(shape.rows).chunk(shape.groups)):
                step = torch.nn.functional.softplus(delta[part] + bias[g])
                outputs.append(block.selective_scan(u[part], step, A[g], B[part], C[part], D[g]))
        return torch.cat(outputs)

    return call


# --- measuring -----------------------------------------------------------------------------------


def measure(shape: Shape, threads: int) -> dict[str, Any]:
    """Time every path of a shape, and the bounds; milliseconds, the least of all calls."""
    floats = shape.rows * shape.length * shape.channels
    rounds: list[dict[str, float]] = []
    times = least(paths(shape, threads), lambda: rounds.append(bounds(threads, floats)))
    rates = {key: max(each[key] for each in rounds) for key in rounds[0]}
    memory = 1e3 * shape.bytes_moved / rates["bytes_per_s"]
    exponential = 1e3 * shape.exponentials / rates["exp_per_s"]
    return {
        "shape": shape.name,
        "rows": shape.rows,
        "length": shape.length,
        "ms": times,
        "memory_bound_ms": memory,
        "exp_bound_ms": exponential,
        "bytes": shape.bytes_moved,
        "over_bound": times["operator"] / max(memory, exponential),
        "operator_over_function": times["function"] / times["operator"],
        **rates,
    }


def least(
    calls: dict[str, Callable[[], object]], between: Callable[[], object] = lambda: None
) -> dict[str, float]:
    """Call the paths in blocks, in turns, and ``between`` once a turn; milliseconds.

    Before a block there is a pause, in which the idle threads of the path before stop spinning, and
    calls that are not counted, which bring back the path's own data into the caches.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(BLOCKS):
        time.sleep(PAUSE_S)
        between()
        for name, call in calls.items():
            if sum(taken[name]) > ENOUGH_S:
                continue
            time.sleep(PAUSE_S)
            first = seconds(call)
            count = min(MOST_CALLS, round(BLOCK_S / first))
            for _ in range(count // 4):
                call()
            taken[name] += [seconds(call) for _ in range(count)] or [first]
    return {name: 1e3 * min(values) for name, values in taken.items()}


def seconds(call: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def bounds(threads: int, floats: int) -> dict[str, float]:
    """Return bytes and exponentials a second that the compiled helper measures."""
    if not BOUNDS.is_file():
        raise MissingError(f"there is no {BOUNDS}; build it with `{native.ADVICE}`")
    command = [str(BOUNDS), str(threads), str(floats)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    result: dict[str, float] = json.loads(done.stdout)
    return {key: result[key] for key in ("bytes_per_s", "exp_per_s")}


def measure_training(name: str, shape: Shape) -> dict[str, Any]:
    """Time forward and backward of the native and the portable torch path; milliseconds."""
    tensors = [torch.from_numpy(shape.inputs()[key]).requires_grad_() for key in NAMES]

    def step(value: str) -> Callable[[], object]:
        def call() -> None:
            os.environ[native.SWITCH] = value
            scan.selective_scan(*tensors).sum().backward()

        return call

    before = os.environ.get(native.SWITCH, "on")
    try:
        times = least({"torch native": step("on"), "torch portable": step("off")})
    finally:
        os.environ[native.SWITCH] = before
    return {"name": name, "ms": times, "ratio": times["torch portable"] / times["torch native"]}


# --- results -------------------------------------------------------------------------------------


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures that checks outside read."""
    network = [row for row in rows if row["shape"] in (INTER.name, INTRA.name)]
    single = {row["length"]: row["ms"]["operator"] for row in rows if row["rows"] == 1}
    per_token = [ms / length for length, ms in single.items()]
    spread = (max(per_token) - min(per_token)) / statistics.mean(per_token)
    return {
        "operator_over_function": {row["shape"]: row["operator_over_function"] for row in network},
        "over_bound": max(row["over_bound"] for row in network),
        "per_token_spread": spread if len(per_token) > 1 else None,
    }


HEADER: Final = (
    "rows x L", "operator", "function", "ratio", "torch native", "portable", "sequential",
    "mambapy", "memory bound", "exp bound", "over bound",
)  # fmt: skip
TRAINING_HEADER: Final = ("forward and backward", "torch native", "torch portable", "ratio")


def table(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Yield the cells of one line a shape; times in milliseconds."""
    for row in rows:
        ms = row["ms"]
        yield (
            row["shape"],
            cell(ms["operator"]),
            cell(ms["function"]),
            f"{row['operator_over_function']:.1f} x",
            *(
                cell(ms.get(name))
                for name in ("torch native", "torch portable", "torch sequential", "mambapy")
            ),
            cell(row["memory_bound_ms"]),
            cell(row["exp_bound_ms"]),
            f"{row['over_bound']:.2f} x",
        )


def training_table(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Yield the cells of one line a shape."""
    for row in rows:
        ms = row["ms"]
        yield row["name"], *map(cell, ms.values()), f"{row['ratio']:.1f} x"


def cell(milliseconds: float | None) -> str:
    """Return a time as a person reads it; "-" for one that was not measured."""
    if milliseconds is None:
        return "-"
    return f"{milliseconds:.2f}" if milliseconds < 10 else f"{milliseconds:.0f}"


def print_tables(rows: Sequence[dict[str, Any]], training: Sequence[dict[str, Any]]) -> None:
    """Print the tables to stdout."""
    print("Times in milliseconds, 1024 channels, 16 states.\n")
    for lines in ([HEADER, *table(rows)], [TRAINING_HEADER, *training_table(training)]):
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        if len(lines) > 1:
            for line in lines:
                print("  ".join(text.rjust(w) for text, w in zip(line, widths, strict=True)))
            print()


def record(
    rows: Sequence[dict[str, Any]],
    training: Sequence[dict[str, Any]],
    result: dict[str, Any],
    threads: int,
) -> None:
    """Write the JSON, the plot and the tables."""
    write_json(
        RESULTS / "scan.json",
        {
            "environment": environment(),
            "threads": threads,
            "shapes": rows,
            "training": training,
            **result,
        },
    )
    plot(rows, RESULTS / "scan.png")
    page = ROOT / "plugins" / "README.md"
    replace_table(page, "scan", HEADER, list(table(rows)))
    replace_table(page, "training", TRAINING_HEADER, list(training_table(training)))


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw time a step over length: a level line is a time linear in the length."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    single = sorted((row for row in rows if row["rows"] == 1), key=lambda row: row["length"])
    lengths = [row["length"] for row in single]
    for name in ("operator", "torch native", "function", "torch portable"):
        axes.plot(
            lengths, [1e3 * row["ms"][name] / row["length"] for row in single], "o-", label=name
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="length L of one row, 1024 channels, 16 states",
        ylabel="microseconds a step",
    )
    axes.set_xticks(lengths, [str(length) for length in lengths])
    axes.minorticks_off()
    figure.legend(loc="outside right upper")
    axes.grid(alpha=0.3)
    with replacing(path) as aside:
        figure.savefig(aside, dpi=120)


if __name__ == "__main__":
    sys.exit(run(main))
