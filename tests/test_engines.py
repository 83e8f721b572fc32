"""The ONNX Runtime engine: what it returns, what it refuses, and how it says so."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from mambapro import native
from mambapro.cli import InputError, MissingError
from mambapro.contract import EXIT_MISSING, SPEC_KEY
from runtime.engines import OnnxEngine, onnx_engine
from tests.export_samples import exported, triplets

ENGINE_BATCH = 1e-6
"""Absolute: float32 sums in another order when the batch is cut differently."""


@pytest.fixture(scope="module")
def engine() -> OnnxEngine:
    return OnnxEngine(exported()[0].path, threads=1, max_batch=4)


def test_a_batch_larger_than_the_engines_is_split(engine):
    inputs = triplets(11)
    whole = engine.embed(*inputs)
    one_by_one = [engine.embed(*(x[i : i + 1] for x in inputs)) for i in range(11)]
    assert whole.shape == (11, engine.spec.embedding_dim)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole, np.concatenate(one_by_one), atol=ENGINE_BATCH)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)


def test_an_empty_batch_gives_no_embeddings(engine):
    assert engine.embed(*triplets(0)).shape == (0, engine.spec.embedding_dim)


def test_embeddings_belong_to_the_caller(engine):
    first = engine.embed(*triplets(2))
    kept = first.copy()
    engine.embed(*triplets(2, seed=6))
    np.testing.assert_array_equal(first, kept)
    first[:] = 0  # writable


def test_pixels_of_a_missing_modality_do_not_matter(engine):
    images, mask, camera = triplets(3)
    mask[:] = (1, 0, 1)
    other = images.copy()
    other[:, 1] = 255 - other[:, 1]
    expected = engine.embed(images, mask, camera)
    np.testing.assert_array_equal(engine.embed(other, mask, camera), expected)
    mask[:] = 1
    assert np.abs(engine.embed(images, mask, camera) - expected).max() > 1e-3


def test_an_unknown_camera_differs_from_a_known_one(engine):
    images, mask, _ = triplets(1)
    unknown, known = (engine.embed(images, mask, np.array([camera])) for camera in (-1, 0))
    assert np.abs(unknown - known).max() > 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i, m, c: (i[:, :, :-1], m, c), r"images must be \(B, 3, 32, 16, 3\) uint8, got"),
        (lambda i, m, c: (i.astype(np.float32), m, c), r"uint8, got \(2, 3, 32, 16, 3\) float32"),
        (lambda i, m, c: (i, m[:1], c), r"mask must be \(2, 3\) float32, got \(1, 3\)"),
        (lambda i, m, c: (i, m.astype(bool), c), "mask must be .* got .* bool"),
        (lambda i, m, c: (i, m * 0.5, c), r"1 \(present\) and 0 \(missing\) only"),
        (lambda i, m, c: (i, m * np.array([[1], [0]], np.float32), c), "triplet 1 has no modality"),
        (lambda i, m, c: (i, m, c.astype(np.int32)), "camera must be .* int64, got .* int32"),
        (lambda i, m, c: (i, m, np.array([0, 3])), r"camera must be 0 to 2, or -1 .* got 3"),
        (lambda i, m, c: (i, m, np.array([-2, 0])), "got -2"),
    ],
)
def test_wrong_input_is_refused_with_what_is_legal(engine, change, message):
    with pytest.raises(InputError, match=message):
        engine.embed(*change(*triplets(2)))


def without_metadata(path):
    model = onnx.load(exported()[0].path)
    del model.metadata_props[:]
    onnx.save(model, str(path))


def of_another_format(path):
    model = onnx.load(exported()[0].path)
    (entry,) = (item for item in model.metadata_props if item.key == SPEC_KEY)
    entry.value = entry.value.replace('"format_version": 1', '"format_version": 99')
    onnx.save(model, str(path))


def with_other_tensors(path):
    model = onnx.load(exported()[0].path)
    model.graph.output[0].name = model.graph.node[-1].output[0] = "feature"
    onnx.save(model, str(path))


def truncated(path):
    path.write_bytes(exported()[0].path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no model file"),
        (lambda path: path.write_text("not a model"), "is not an ONNX model"),
        (truncated, "is not an ONNX model"),
        (without_metadata, "has no metadata 'mambapro.spec'"),
        (of_another_format, "format version 99, this software reads 1"),
        (with_other_tensors, "must have inputs .* and output embedding"),
    ],
)
def test_a_bad_file_is_named(tmp_path, make, message):
    make(tmp_path / "bad.onnx")
    with pytest.raises(InputError, match=message) as caught:
        OnnxEngine(tmp_path / "bad.onnx")
    assert "bad.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_absent_provider_is_no_reason_to_take_another():
    with pytest.raises(MissingError, match=r"only .*CPUExecutionProvider.*; install") as caught:
        OnnxEngine(exported()[0].path, providers=["MIGraphXExecutionProvider"])
    assert caught.value.exit_code == EXIT_MISSING


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_does_not_start_is_no_reason_to_take_another(monkeypatch):
    everything = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: everything)
    with pytest.raises((MissingError, InputError), match="CUDAExecutionProvider"):
        OnnxEngine(exported()[0].path, providers=everything)


@pytest.fixture
def opened(monkeypatch) -> dict:
    """What a session on a machine with every provider is opened with; it runs on the CPU."""
    seen: dict = {}
    session = onnxruntime.InferenceSession

    class Session:
        def __init__(self, model, options, providers, provider_options):
            seen.update(model=model, options=options, given=provider_options)
            seen["asked"] = providers
            path = exported()[0].path
            self.real = session(str(path), providers=["CPUExecutionProvider"])

        def get_providers(self):
            return seen["asked"]

        def __getattr__(self, name):
            return getattr(self.real, name)

    everything = [
        "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider",
    ]  # fmt: skip
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: everything)
    monkeypatch.setattr("onnxruntime.InferenceSession", Session)
    return seen


def test_the_tensorrt_provider_is_given_the_plugin(opened, monkeypatch, tmp_path):
    monkeypatch.setenv(native.FOLDER, str(tmp_path))
    library = tmp_path / "libmambapro_tensorrt.so"
    library.touch()
    providers = ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
    engine = OnnxEngine(exported()[0].path, providers=providers, max_batch=4)
    first, second = opened["given"]
    assert first["trt_extra_plugin_lib_paths"] == str(library)
    assert first["trt_profile_max_shapes"].endswith("camera:4")
    assert second == {}
    handed = onnx.load_model_from_string(opened["model"])
    assert not handed.functions
    assert engine.embed(*triplets(5)).shape == (5, engine.spec.embedding_dim)


def test_without_the_plugin_the_tensorrt_provider_gets_the_loop_and_it_is_said(
    opened, monkeypatch, tmp_path, caplog
):
    monkeypatch.setenv(native.FOLDER, str(tmp_path))
    onnx_engine._announce.cache_clear()
    with caplog.at_level("INFO"):
        OnnxEngine(exported()[0].path, providers=["TensorrtExecutionProvider"])
    assert onnx.load_model_from_string(opened["model"]).functions
    assert "trt_extra_plugin_lib_paths" not in opened["given"][0]
    assert "a loop of TensorRT's layers; no native library for tensorrt" in caplog.text


@pytest.mark.parametrize("serves", ["CPUExecutionProvider", "CUDAExecutionProvider"])
def test_the_operator_is_registered_if_it_serves_the_first_provider(
    opened, monkeypatch, caplog, serves
):
    registered: list[str] = []
    monkeypatch.setattr(native, "find_library", lambda part: Path("/lib/scan.so"))
    monkeypatch.setattr(native, "providers", lambda library: (serves,))
    monkeypatch.setattr(
        "onnxruntime.SessionOptions.register_custom_ops_library",
        lambda self, path: registered.append(path),
    )
    onnx_engine._announce.cache_clear()
    with caplog.at_level("INFO"):
        OnnxEngine(exported()[0].path, providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert registered == (["/lib/scan.so"] if serves.startswith("CUDA") else [])
    assert ("has no kernel for CUDAExecutionProvider" in caplog.text) is not bool(registered)


@pytest.mark.parametrize("arguments", [{"threads": 0}, {"max_batch": 0}])
def test_sizes_must_be_positive(arguments):
    with pytest.raises(InputError, match="at least 1"):
        OnnxEngine(exported()[0].path, **arguments)


def test_the_file_may_lie_anywhere(tmp_path, engine):
    copy = tmp_path / "ä folder" / "copy.onnx"
    copy.parent.mkdir()
    shutil.copy(exported()[0].path, copy)
    inputs = triplets(2)
    np.testing.assert_array_equal(OnnxEngine(copy).embed(*inputs), engine.embed(*inputs))
