"""Random shapes for ONNX Runtime's operators: ``python -m tests.fuzz_scan LIBRARY COUNT``.

Every call must either give what the recurrence gives, or be refused by the operator's own words.
tests/test_native_fuzz.py runs this with libraries that hold the address and undefined-behaviour
sanitizers, which end the process at a read or write out of bounds.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.scan_cases import oracle
from tests.test_export_scan import CARRIED, NAMES, SHAPES, scan_model
from tests.tolerances import SCAN_FLOAT16, SCAN_FLOAT32

SEED = 20260131


def open_session(library: Path, half: bool) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = False  # each tensor an allocation that the sanitizer guards
    options.register_custom_ops_library(str(library))
    model = scan_model(half)
    for value in (*model.graph.input, *model.graph.output):  # the operator shall meet any shape
        value.type.tensor_type.ClearField("shape")
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def random_shapes(random: np.random.Generator) -> dict[str, tuple[int, ...]]:
    """Shapes that fit together in half of the calls, up to zero sizes and odd groups."""
    low = int(random.random() > 0.1)
    sizes = {axis: int(random.integers(low, 41)) for axis in ("L", "D", "N")}
    sizes["G"] = int(random.integers(low, 4))
    sizes["rows"] = int(random.integers(low, 4)) * int(random.choice([sizes["G"], 1]))
    shapes = {name: tuple(sizes[axis] for axis in SHAPES[name]) for name in NAMES}
    if random.random() < 0.4:
        name = str(random.choice(NAMES))
        shape = list(shapes[name])
        axis = int(random.integers(len(shape)))
        change = str(random.choice(["less", "more", "drop", "add", "huge"]))
        if change == "drop":
            del shape[axis]
        elif change == "add":
            shape.insert(axis, 1)
        else:
            by = {"less": -1, "more": 1, "huge": 1000}[change]
            shape[axis] = max(0, shape[axis] + by)
        shapes[name] = tuple(shape)
    return shapes


def legal(shapes: dict[str, tuple[int, ...]]) -> bool:
    if len(shapes["u"]) != 3 or len(shapes["A"]) != 3:
        return False
    sizes = dict(zip(SHAPES["u"], shapes["u"], strict=True))
    sizes |= {"G": shapes["A"][0], "N": shapes["A"][2]}
    fits = all(shapes[name] == tuple(sizes[axis] for axis in SHAPES[name]) for name in NAMES)
    return fits and all(sizes.values()) and sizes["rows"] % sizes["G"] == 0


def random_feed(
    random: np.random.Generator, shapes: dict[str, tuple[int, ...]], half: bool
) -> dict[str, np.ndarray]:
    feed = {}
    for name, shape in shapes.items():
        values = random.standard_normal(shape)
        values = -np.exp(values) if name == "A" else values
        array = values.astype(np.float16 if half and name in CARRIED else np.float32)
        feed[name] = np.asfortranarray(array) if random.random() < 0.3 else array
    return feed


def check(y: np.ndarray, feed: dict[str, np.ndarray], half: bool) -> None:
    expected = oracle(*(feed[name].astype(np.float64) for name in NAMES))
    tolerance = SCAN_FLOAT16 if half else SCAN_FLOAT32
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(y, expected, rtol=0, atol=tolerance * scale)


def main(library: Path, count: int) -> None:
    random = np.random.default_rng(SEED)
    sessions = {half: open_session(library, half) for half in (False, True)}
    ran = refused = 0
    for _ in range(count):
        half = bool(random.integers(2))
        shapes = random_shapes(random)
        feed = random_feed(random, shapes, half)
        if not legal(shapes):
            with pytest.raises(Exception, match="SelectiveScan: "):
                sessions[half].run(None, feed)
            refused += 1
            continue
        (y,) = sessions[half].run(None, feed)
        check(y, feed, half)
        ran += 1
        if random.random() < 0.2:  # NaN and infinity anywhere: any answer, but no crash
            name = str(random.choice(NAMES))
            feed[name].flat[random.integers(feed[name].size)] = random.choice([np.nan, np.inf])
            sessions[half].run(None, feed)
    print(f"{ran} ran, {refused} refused")
    assert ran > count // 5, "too few calls were legal"
    assert refused > count // 5, "too few calls were not"


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
