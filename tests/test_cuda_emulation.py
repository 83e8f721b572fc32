"""The CUDA kernel's own source, run on the CPU by the emulation in tests/native/emulation."""

import ctypes
import enum

import numpy as np
import pytest

from tests.native.build import EMULATED, EMULATED_SCAN, NATIVE, compile_cpp
from tests.scan_cases import ScanCase, oracle, scan_cases
from tests.tolerances import SCAN_BFLOAT16, SCAN_FLOAT16, SCAN_FLOAT32

CARRIED = (0, 1, 3, 4)  # u, delta, B, C are of the operator's type; A, D, delta_bias of float32
THROUGHPUT, LATENCY = 0, 1000  # multiprocessors that make the launcher take the one or the other
INVALID_VALUE = 1
MORE_CASES = [
    ScanCase("several_tiles_of_channels", batch=1, length=19, channels=70),
    ScanCase("whole_tiles", batch=1, length=32, channels=64),
    ScanCase("forty_states", batch=1, length=21, channels=9, states=40, groups=2),
    ScanCase("many_states", batch=1, length=18, channels=3, states=1024),
    ScanCase("half_many_states", batch=1, length=35, channels=17, states=33, half=True),
]


class Order(enum.IntEnum):
    FORWARD = 0
    BACKWARD = 1
    SHUFFLED = 2


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    output = tmp_path_factory.mktemp("emulation") / "scan.so"
    sources = [*EMULATED_SCAN, NATIVE / "scan_emulated.cc"]
    library = ctypes.CDLL(str(compile_cpp(output, sources, [*EMULATED, "-O1", "-fPIC", "-shared"])))
    library.EmulationWhy.restype = ctypes.c_char_p
    library.EmulatedToHalf.argtypes = [ctypes.c_float]
    library.EmulatedToHalf.restype = ctypes.c_uint16
    library.EmulatedFromHalf.argtypes = [ctypes.c_uint16]
    library.EmulatedFromHalf.restype = ctypes.c_float
    return library


def to_bfloat16(x: np.ndarray) -> np.ndarray:
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat16(x: np.ndarray) -> np.ndarray:
    return (x.astype(np.uint32) << 16).view(np.float32)


def widened(x: np.ndarray, gap: int) -> np.ndarray:
    """Append `gap` elements that nobody may read to each step."""
    bad = np.frombuffer(b"\xff" * x.itemsize, x.dtype)[0]
    return np.pad(x, [(0, 0), (0, 0), (0, gap)], constant_values=bad)


def run(library, inputs, kind="float32", processors=LATENCY, order=0, seed=0, skip=-1, gap=0):
    """Return y, or the cudaError_t and the emulation's reason."""
    wide = {"float32": np.float32, "float16": np.float16, "bfloat16": None}[kind]
    arrays = []
    for index, array in enumerate(inputs):
        if index not in CARRIED:
            arrays.append(np.ascontiguousarray(array, np.float32))
            continue
        arrays.append(widened(to_bfloat16(array) if wide is None else array.astype(wide), gap))
    rows, length, channels = inputs[0].shape
    y = np.full_like(arrays[0], 7)
    groups, states = inputs[2].shape[0], inputs[2].shape[2]
    type_code = ["float32", "float16", "bfloat16"].index(kind)
    sizes = (ctypes.c_int64 * 6)(rows, groups, length, channels, states, type_code)
    pointers = [x.ctypes.data_as(ctypes.c_void_p) for x in (*arrays, y)]
    library.EmulationSet(processors, order, seed, skip)
    error = library.EmulatedScan(sizes, (ctypes.c_void_p * 8)(*pointers), ctypes.c_int64(gap))
    if error:
        return error, library.EmulationWhy().decode()
    y, rest = y[..., :channels], y[..., channels:]
    assert (rest == 7).all()
    return from_bfloat16(y) if wide is None else y


def close(actual, expected, tolerance):
    assert not isinstance(actual, tuple), actual
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("processors", [THROUGHPUT, LATENCY])
@pytest.mark.parametrize("case", [*scan_cases(), *MORE_CASES], ids=str)
def test_matches_float64_oracle(library, case, processors):
    inputs = case.inputs()
    y = run(library, inputs, "float16" if case.half else "float32", processors)
    close(y, oracle(*inputs), SCAN_FLOAT16 if case.half else SCAN_FLOAT32)


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "length"), [(1, 384), (3, 128)])
@pytest.mark.parametrize("processors", [THROUGHPUT, LATENCY])
def test_shapes_of_the_network(library, processors, groups, length):
    case = ScanCase("network", groups=groups, batch=1, length=length, channels=1024)
    inputs = case.inputs()
    close(run(library, inputs, processors=processors), oracle(*inputs), SCAN_FLOAT32)


@pytest.mark.parametrize("processors", [THROUGHPUT, LATENCY])
def test_bfloat16(library, processors):
    inputs = [
        from_bfloat16(to_bfloat16(x)).astype(np.float64) if i in CARRIED else x
        for i, x in enumerate(ScanCase("bfloat16", groups=2, length=33).inputs())
    ]
    close(run(library, inputs, "bfloat16", processors), oracle(*inputs), SCAN_BFLOAT16)


@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_strided_tensors(library, kind):
    inputs = ScanCase("strides", groups=2, length=35, half=kind == "float16").inputs()
    for processors in (THROUGHPUT, LATENCY):
        dense = run(library, inputs, kind, processors)
        np.testing.assert_array_equal(run(library, inputs, kind, processors, gap=3), dense)


@pytest.mark.parametrize("processors", [THROUGHPUT, LATENCY])
@pytest.mark.parametrize("states", [16, 40])
def test_every_order_of_threads_gives_the_same_bits(library, processors, states):
    inputs = ScanCase("orders", batch=1, length=65, channels=40, states=states).inputs()
    expected = run(library, inputs, processors=processors)
    for order, seed in [(Order.BACKWARD, 0), (Order.SHUFFLED, 1), (Order.SHUFFLED, 2)]:
        y = run(library, inputs, processors=processors, order=order, seed=seed)
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("barrier", range(5))
@pytest.mark.parametrize("processors", [THROUGHPUT, LATENCY])
def test_a_missing_barrier_is_caught(library, processors, barrier):
    """Each of the kernel's barriers is needed, and the emulation shows it."""
    inputs = ScanCase("barriers", batch=1, length=64, channels=32).inputs()
    expected = run(library, inputs, processors=processors)
    runs = [(Order.FORWARD, 0), (Order.BACKWARD, 0), (Order.SHUFFLED, 1)]
    broken = [run(library, inputs, "float32", processors, *r, skip=barrier) for r in runs]
    assert any(isinstance(y, tuple) or not np.array_equal(y, expected) for y in broken)
    whole = run(library, inputs, processors=processors, skip=5)  # there is no sixth barrier
    np.testing.assert_array_equal(whole, expected)


def test_nan_stays_in_its_channel(library):
    inputs = ScanCase("nan", batch=2, length=20).inputs()
    expected = oracle(*inputs)
    inputs[0][1, 3, 4] = np.nan
    y = run(library, inputs)
    assert np.isnan(y[1, 3:, 4]).all()
    y[1, 3:, 4] = expected[1, 3:, 4]
    close(y, expected, SCAN_FLOAT32)


@pytest.mark.parametrize(
    ("index", "value"), [(0, 0), (1, 0), (1, 4), (2, 0), (3, 0), (4, 0), (4, 1025), (5, 9)]
)
def test_bad_sizes_are_refused(library, index, value):
    sizes = [6, 3, 4, 5, 16, 0]
    sizes[index] = value
    array, nowhere = (ctypes.c_int64 * 6)(*sizes), (ctypes.c_void_p * 8)()
    assert library.EmulatedScan(array, nowhere, ctypes.c_int64(0)) == INVALID_VALUE


def test_emulated_half_rounds_as_numpy(library):
    every = np.arange(1 << 16, dtype=np.uint16)
    floats = every.view(np.float16).astype(np.float32)
    got = np.array([library.EmulatedFromHalf(int(bits)) for bits in every], np.float32)
    np.testing.assert_array_equal(got, floats)
    finite = np.sort(floats[np.isfinite(floats)])
    between = (finite[:-1] + finite[1:]) / 2  # ties, which go to even
    with np.errstate(over="ignore"):
        values = np.concatenate([finite, between, between * 1.0001, [65519, 65520, 1e9, -1e9]])
        expected = values.astype(np.float32).astype(np.float16).view(np.uint16)
    got = np.array([library.EmulatedToHalf(float(x)) for x in values], np.uint16)
    np.testing.assert_array_equal(got, expected)
