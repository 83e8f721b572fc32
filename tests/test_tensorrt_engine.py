"""The native TensorRT engine on a fake GPU: buffers, lifetimes, threads, what it refuses."""

import ctypes
import dataclasses
import re
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mambapro import native
from mambapro.cli import InputError, MissingError
from mambapro.contract import EXIT_BAD_INPUT, EXIT_MISSING
from mambapro.files import sha256, write_json
from mambapro.spec import ModelSpec
from runtime.engines import TensorrtEngine, cuda_graphs, open_engine, tensorrt_engine
from runtime.engines.manifest import Device, EngineManifest, Plugin, manifest_path
from runtime.stream import main as stream
from tests.fake_gpu import (
    CAPABILITY,
    DTYPES,
    GPU_NAME,
    VERSION,
    FakeDriver,
    Gpu,
    fake_pycuda,
    fake_tensorrt,
    network,
    plan,
)

SIZE, CAMERAS = (8, 4), 3
CUDA_HEADER = Path("/usr/local/cuda/include/cuda.h")


@pytest.fixture
def gpu(monkeypatch, tmp_path) -> Gpu:
    device = Gpu()
    driver = fake_pycuda(device)
    package = types.ModuleType("pycuda")
    package.driver = driver
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(device))
    fake = FakeDriver(device)
    monkeypatch.setattr(cuda_graphs.ctypes, "CDLL", lambda name: fake)
    monkeypatch.setenv(native.FOLDER, str(tmp_path))
    (tmp_path / "libmambapro_tensorrt.so").write_bytes(b"plugin")
    tensorrt_engine.load_plugin.cache_clear()
    yield device
    tensorrt_engine.load_plugin.cache_clear()


def write_engine(
    folder: Path, batch=(1, 2, 4), *, with_plugin=True, changes=None, **device
) -> Path:
    """Write an engine for the fake device and its manifest."""
    path = folder / "model.int8.engine"
    path.write_bytes(plan(batch, SIZE, **(changes or {})))
    spec = ModelSpec("person", SIZE, 9, CAMERAS, "space", "weights", precision="int8")
    library = folder / "libmambapro_tensorrt.so"
    facts = {
        "gpu": GPU_NAME,
        "compute_capability": CAPABILITY,
        "tensorrt": VERSION,
        "plugin": Plugin(library.name, "operator", sha256(library)) if with_plugin else None,
    }
    manifest = EngineManifest(
        Device(**{**facts, **device}), spec, "model.int8.onnx", "0", sha256(path), batch, None, 1.0
    )
    write_json(manifest_path(path), manifest.to_dict())
    return path


def triplets(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    mask = random.integers(0, 2, (count, 3)).astype(np.float32)
    mask[:, 0] = 1
    images = random.integers(0, 256, (count, 3, *SIZE, 3), np.uint8)
    return images, mask, random.integers(-1, CAMERAS, count)


@pytest.mark.parametrize("count", [0, 1, 4, 5, 8, 11, 19])
def test_batches_larger_than_the_profile_are_split(gpu, tmp_path, count):
    inputs = triplets(count)
    with TensorrtEngine(write_engine(tmp_path)) as engine:
        for _ in range(3):  # the first run, the captured graph, and again
            np.testing.assert_array_equal(engine.embed(*inputs), network(*inputs))
    gpu.assert_clean()


def test_batches_smaller_than_the_profile_are_filled_up(gpu, tmp_path):
    with TensorrtEngine(write_engine(tmp_path, (3, 4, 6))) as engine:
        for count in (1, 2, 7):
            inputs = triplets(count)
            np.testing.assert_array_equal(engine.embed(*inputs), network(*inputs))


def test_the_callers_limit_is_kept_and_cannot_exceed_the_profile(gpu, tmp_path):
    path, inputs = write_engine(tmp_path), triplets(9)
    for limit, parts in ((2, 5), (100, 3)):
        gpu.calls.clear()
        with TensorrtEngine(path, max_batch=limit) as engine:
            engine.embed(*inputs)
        assert gpu.calls.count("Event.record") == parts
    with pytest.raises(InputError, match="at least 1"):
        TensorrtEngine(path, max_batch=0)


def test_one_buffer_is_filled_while_the_other_is_in_use(gpu, tmp_path):
    with TensorrtEngine(write_engine(tmp_path)) as engine:
        engine.embed(*triplets(8))
        gpu.calls.clear()
        engine.embed(*triplets(8))
        seen = [name for name in gpu.calls if name.startswith(("Event", "memcpy_h"))]
    uploads = ["memcpy_htod_async"] * 3
    assert seen == [*uploads, "Event.record", *uploads, "Event.record", *["Event.synchronize"] * 2]


def test_each_batch_size_is_captured_once_after_its_first_run(gpu, tmp_path):
    with TensorrtEngine(write_engine(tmp_path)) as engine:
        for count in (4, 4, 3, 4, 3, 3):
            engine.embed(*triplets(count))
        assert gpu.calls.count("cuStreamBeginCapture_v2") == 2
        assert gpu.calls.count("execute_async_v3") == 4  # a run and a capture each
        assert gpu.calls.count("cuGraphLaunch") == 4
    gpu.assert_clean()


def test_an_engine_that_cannot_be_captured_runs_without_and_says_so_once(gpu, tmp_path, caplog):
    gpu.refuse_capture = True
    inputs = triplets(4)
    with TensorrtEngine(write_engine(tmp_path)) as engine:
        for count in (4, 3, 4):
            engine.embed(*triplets(count))
        np.testing.assert_array_equal(engine.embed(*inputs), network(*inputs))
    assert caplog.text.count("no CUDA graphs") == 1
    assert "cuGraphLaunch" not in gpu.calls
    gpu.assert_clean()


def test_an_engine_without_the_plugin_is_not_captured(gpu, tmp_path):
    inputs = triplets(4)
    with TensorrtEngine(write_engine(tmp_path, with_plugin=False)) as engine:
        for _ in range(2):
            np.testing.assert_array_equal(engine.embed(*inputs), network(*inputs))
    assert "cuStreamBeginCapture_v2" not in gpu.calls
    assert not sys.modules["tensorrt"].loaded


def test_results_are_the_callers_own(gpu, tmp_path):
    with TensorrtEngine(write_engine(tmp_path)) as engine:
        first = engine.embed(*triplets(4))
        kept = first.copy()
        engine.embed(*triplets(4, seed=1))
        np.testing.assert_array_equal(first, kept)
        first[:] = 0
    assert first.flags.owndata


def test_one_thread_owns_the_gpu_whoever_calls(gpu, tmp_path):
    with TensorrtEngine(write_engine(tmp_path)) as engine:

        def work(seed: int) -> bool:
            inputs = triplets(1 + seed % 7, seed)
            return np.array_equal(engine.embed(*inputs), network(*inputs))

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(work, range(40)))
    assert len(gpu.threads) == 1
    assert threading.get_ident() not in gpu.threads


def test_two_engines_share_the_device_and_load_the_plugin_once(gpu, tmp_path):
    path = write_engine(tmp_path)
    with TensorrtEngine(path) as one, TensorrtEngine(path) as two:
        for engine in (one, two):
            np.testing.assert_array_equal(engine.embed(*triplets(2)), network(*triplets(2)))
    assert len(sys.modules["tensorrt"].loaded) == 1
    assert len(gpu.threads) == 2


def test_a_closed_engine_is_not_used(gpu, tmp_path):
    engine = TensorrtEngine(write_engine(tmp_path))
    engine.close()
    engine.close()
    gpu.assert_clean()
    with pytest.raises(InputError, match="closed"):
        engine.embed(*triplets(1))


def test_wrong_input_is_refused(gpu, tmp_path):
    images, mask, camera = triplets(2)
    with TensorrtEngine(write_engine(tmp_path)) as engine:
        with pytest.raises(InputError, match=r"images must be \(B, 3, 8, 4, 3\) uint8"):
            engine.embed(images[:, :, 1:], mask, camera)
        with pytest.raises(InputError, match="camera must be 0 to 2"):
            engine.embed(images, mask, camera + CAMERAS)


def test_a_failed_call_frees_its_buffers_and_the_next_one_works(gpu, tmp_path):
    with TensorrtEngine(write_engine(tmp_path, changes={"fails": True})) as engine:
        with pytest.raises(RuntimeError, match="could not start"):
            engine.embed(*triplets(6))
        facts = engine._session._engine.facts
        facts["fails"] = False
        inputs = triplets(6, seed=2)
        np.testing.assert_array_equal(engine.embed(*inputs), network(*inputs))
    gpu.assert_clean()


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ({"compute_capability": (8, 9), "gpu": "RTX 4090"}, r"\(RTX 4090\): .*8\.9, here 8\.7"),
        ({"tensorrt": "10.16.0.1"}, "TensorRT 10.16.0.1, here 10.3.0.30"),
        ({"plugin": Plugin("a.so", "operator", "f" * 64)}, "plugin ffffffffffff, here"),
    ],
)
def test_an_engine_of_another_device_is_refused_with_the_way_to_rebuild_it(
    gpu, tmp_path, device, message
):
    path = write_engine(tmp_path, **device)
    with pytest.raises(InputError, match=message) as caught:
        TensorrtEngine(path)
    assert "python export/to_trt.py --int8" in str(caught.value)
    gpu.assert_clean()


def test_another_model_of_gpu_with_the_same_capability_is_said(gpu, tmp_path, caplog):
    TensorrtEngine(write_engine(tmp_path, gpu="Orin Nano")).close()
    assert "was built on Orin Nano and runs on Orin" in caplog.text


def without_manifest(path):
    manifest_path(path).unlink()


def damaged_manifest(path):
    manifest_path(path).write_text('{"format_version": 1')


def other_format(path):
    text = manifest_path(path).read_text().replace('"format_version": 1', '"format_version": 9')
    manifest_path(path).write_text(text)


def unknown_fact(path):
    text = manifest_path(path).read_text().replace('"build_s"', '"built_s"')
    manifest_path(path).write_text(text)


def interrupted_copy(path):
    path.write_bytes(path.read_bytes()[:-3])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (Path.unlink, "there is no engine"),
        (without_manifest, "has no manifest model.int8.engine.json"),
        (damaged_manifest, "is damaged"),
        (other_format, "format version 9, this software reads 1"),
        (unknown_fact, "built_s"),
        (interrupted_copy, "describes another engine"),
    ],
)
def test_a_bad_file_is_named(gpu, tmp_path, spoil, message):
    path = write_engine(tmp_path)
    spoil(path)
    with pytest.raises(InputError, match=message):
        TensorrtEngine(path)


def rehash(path: Path) -> None:
    manifest = tensorrt_engine_manifest(path)
    new = dataclasses.replace(manifest, engine_sha256=sha256(path))
    write_json(manifest_path(path), new.to_dict())


def tensorrt_engine_manifest(path: Path) -> EngineManifest:
    import json

    from mambapro.config import from_dict

    return from_dict(EngineManifest, json.loads(manifest_path(path).read_text()))


def test_what_tensorrt_cannot_read_is_refused_and_nothing_is_left(gpu, tmp_path, caplog):
    path = write_engine(tmp_path)
    path.write_bytes(b"not a plan")
    rehash(path)
    with pytest.raises(InputError, match="TensorRT cannot read"):
        TensorrtEngine(path)
    assert "magic tag does not match" in caplog.text
    gpu.assert_clean()


def test_other_tensors_are_refused(gpu, tmp_path):
    path = write_engine(tmp_path, changes={"tensors": [*DTYPES, "extra"]})
    with pytest.raises(InputError, match="must have tensors"):
        TensorrtEngine(path)
    gpu.assert_clean()


def test_a_missing_plugin_is_named(gpu, tmp_path):
    path = write_engine(tmp_path)
    (tmp_path / "libmambapro_tensorrt.so").unlink()
    with pytest.raises(MissingError, match="no native library for tensorrt") as caught:
        TensorrtEngine(path)
    assert caught.value.exit_code == EXIT_MISSING


def test_a_missing_gpu_is_named(gpu, tmp_path):
    gpu.count = 0
    with pytest.raises(MissingError, match="sees no GPU"):
        TensorrtEngine(write_engine(tmp_path))


def test_a_missing_pycuda_is_named(gpu, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(MissingError, match="pip install pycuda"):
        TensorrtEngine(write_engine(tmp_path))


def test_a_missing_tensorrt_is_named(gpu, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingError, match=r"TensorRT cannot be imported .*JetPack"):
        TensorrtEngine(write_engine(tmp_path))


def test_the_suffix_chooses_the_engine(gpu, tmp_path):
    engine = open_engine(write_engine(tmp_path), threads=2, max_batch=3)
    assert isinstance(engine, TensorrtEngine)
    engine.close()
    with pytest.raises(InputError, match="no model file"):
        open_engine(tmp_path / "model.onnx")


def test_the_stream_says_what_an_engine_needs(tmp_path, monkeypatch):
    """The real thing: this environment has no TensorRT."""
    monkeypatch.setenv(native.FOLDER, str(tmp_path))
    (tmp_path / "libmambapro_tensorrt.so").touch()
    path = write_engine(tmp_path)
    clip = tmp_path / "clip.mp4"
    clip.touch()
    arguments = ["--source", str(clip), "--set", f"models.person={path}"]
    with pytest.raises(MissingError, match="TensorRT cannot be imported") as caught:
        stream(arguments)
    assert caught.value.exit_code == EXIT_MISSING
    manifest_path(path).unlink()
    with pytest.raises(InputError, match="no manifest") as refused:
        stream(arguments)
    assert refused.value.exit_code == EXIT_BAD_INPUT


def test_the_drivers_functions_have_these_arguments():
    """Read from NVIDIA's header, where a toolkit is."""
    if not CUDA_HEADER.is_file():
        pytest.skip("no CUDA toolkit")
    header = re.sub(r"/\*.*?\*/", "", CUDA_HEADER.read_text(errors="replace"), flags=re.S)
    defined = r"#define (cu\w+)\s+(?:__CUDA_API_PTSZ\()?(cu\w+)"
    spelled = {symbol: name for name, symbol in re.findall(defined, header)}
    kinds = {ctypes.c_void_p: "handle", ctypes.c_int: "enum", ctypes.c_ulonglong: "long"}
    for symbol, types_ in cuda_graphs.PROTOTYPES.items():
        name = spelled.get(symbol, symbol)
        found = re.search(rf"CUresult CUDAAPI {name}\(([^)]*)\);", header)
        assert found, symbol
        expected = [kinds.get(kind, "pointer") for kind in types_]
        assert [_kind(argument) for argument in found.group(1).split(",")] == expected, symbol
    mode = re.search(r"CU_STREAM_CAPTURE_MODE_THREAD_LOCAL\s*=\s*(\d)", header)
    assert mode
    assert int(mode.group(1)) == cuda_graphs.CAPTURE_THREAD_LOCAL


def _kind(argument: str) -> str:
    if "*" in argument:
        return "pointer"
    if "unsigned long long" in argument:
        return "long"
    return "enum" if "Mode" in argument else "handle"


def test_a_machine_without_a_driver_is_told_so(monkeypatch):
    def fail(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(cuda_graphs.ctypes, "CDLL", fail)
    with pytest.raises(MissingError, match=r"libcuda.so.1"):
        cuda_graphs.GraphDriver()
