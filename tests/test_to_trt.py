"""export/to_trt.py: what it makes without a GPU, what TensorRT-RTX builds, what is left behind."""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from export import engine_file, to_trt, trt_check
from export.engine_file import Request, without_functions
from export.ranking import check_ranking
from mambapro import native
from mambapro.cli import CheckError, InputError, MissingError, run
from mambapro.contract import EXIT_INTERRUPTED, EXIT_MISSING, OP_NAME
from mambapro.files import sha256
from mambapro.spec import read_spec, write_spec
from runtime.engines import OnnxEngine
from runtime.engines.manifest import Device, read_manifest
from runtime.engines.tensorrt_provider import PLUGIN_DOMAIN, prepare
from tests.export_samples import exported, one_thread  # noqa: F401
from tests.native.build import require

ROOT = Path(__file__).parents[1]
COMMAND = str(ROOT / "export" / "to_trt.py")


@pytest.fixture
def model(tmp_path) -> Path:
    """A copy of the tiny model, its checkpoint beside it; the dataset stays where it is."""
    source = exported()[0].path
    shutil.copy(source, tmp_path / "model.onnx")
    shutil.copy(source.with_name("best.pt"), tmp_path / "best.pt")
    return tmp_path / "model.onnx"


@pytest.fixture(scope="module")
def tensorrt_rtx() -> str:
    """The Python that has TensorRT-RTX; CI may not do without."""
    python = os.environ.get(trt_check.PYTHON, str(trt_check.DEFAULT_PYTHON))
    require(shutil.which(python), "Python with tensorrt_rtx (make tensorrt-rtx)")
    return python


def to_int8(source: Path) -> Path:
    """Write a quantised file of the tiny model: its data is too little for the ranking budget."""
    from export.calibrate import Settings
    from export.to_int8 import quantize

    output = source.with_suffix(".int8.onnx")
    quantize(source, output, "tensorrt", Settings(images=16, held_out=0))
    return output


def last_line(capsys) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.timeout(900)  # on busy cores
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_tensorrt_rtx_builds_every_precision(model, tensorrt_rtx, precision, capsys):
    if precision == "int8":
        to_int8(model)
    arguments = [str(model), f"--{precision}", "--check", "--onnx-only", "--no-ranking", "--json"]
    assert to_trt.main([*arguments, "--batch", "1,2,4"]) == 0
    result = last_line(capsys)
    products = result["portable"]["products"]
    assert max(products, key=products.get) == precision
    assert result["portable"]["plan_bytes"] > 0
    assert result["engine"] is None
    assert not list(model.parent.glob("*.engine*"))


@pytest.mark.slow
def test_tensorrt_rtx_says_what_it_cannot_read(model, tensorrt_rtx):
    broken = onnx.load(str(model))
    (node,) = [n for n in broken.graph.node if n.op_type == "Softmax"][:1]
    node.op_type, node.domain = "Missing", "com.example"
    onnx.save(broken, str(model))
    with pytest.raises(CheckError, match=r"TensorRT-RTX does not build .*model.onnx: "):
        trt_check.check(model, (1, 1, 2), (32, 16))


def test_a_missing_tensorrt_rtx_is_named(model, monkeypatch, tmp_path):
    monkeypatch.setenv(trt_check.PYTHON, str(tmp_path / "none"))
    with pytest.raises(MissingError, match="make tensorrt-rtx"):
        trt_check.check(model, (1, 1, 2), (32, 16))
    monkeypatch.setenv(trt_check.PYTHON, sys.executable)  # a Python, but without it
    with pytest.raises(CheckError, match="has no tensorrt_rtx"):
        trt_check.check(model, (1, 1, 2), (32, 16))


def heed_interrupts():
    """A shell lets what it starts in the background ignore them, these tests too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_an_interrupt_ends_the_build(model, tensorrt_rtx, tmp_path):
    """As from a terminal: the signal reaches the whole group."""
    command = [tensorrt_rtx, str(ROOT / "export" / "trt_check.py"), str(model)]
    for _ in range(8):  # on a busy machine a build may end before the signal reaches it
        process = subprocess.Popen(
            [*command, "1", "8", "64", "32", "16"], stderr=subprocess.PIPE, text=True,
            preexec_fn=heed_interrupts,
        )  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:  # the builder shows its first phase
            if "/" in line:
                break
        process.send_signal(signal.SIGINT)
        _, printed = process.communicate(timeout=120)
        if process.returncode != 0:
            break
    assert process.returncode == EXIT_INTERRUPTED, printed
    assert "interrupted" in printed


def test_without_a_gpu_all_but_the_engine_is_done_and_the_rest_is_named(model, capsys):
    assert run(to_trt.main, [str(model), "--fp16", "--json", "--batch", "1,2,4"]) == EXIT_MISSING
    printed = capsys.readouterr()
    result = json.loads(printed.out.splitlines()[-1])
    assert set(result["missing"]) == {"TensorRT", "GPU", "plugin"}
    assert result["ranking"]["reference"] == "PyTorch"
    assert abs(result["ranking"]["map_drop_points"]) < 5
    half = model.with_name("model.fp16.onnx")
    assert read_spec(half).precision == "fp16"
    error = printed.err.splitlines()[-1]
    assert "lacks TensorRT, GPU, plugin" in error
    assert "python export/to_trt.py --fp16 --onnx model.fp16.onnx --batch 1,2,4" in error
    assert not list(model.parent.glob("*.engine*"))


@pytest.fixture(autouse=True)
def no_plugin(monkeypatch, tmp_path_factory):
    """This machine may have built one."""
    libraries = ROOT / "build" / "lib"
    folder = tmp_path_factory.mktemp("lib")
    for path in libraries.glob("*.so") if libraries.is_dir() else ():
        if "tensorrt" not in path.name:
            (folder / path.name).symlink_to(path)
    monkeypatch.setenv(native.FOLDER, str(folder))


def test_the_named_file_is_taken_without_torch_and_data(model, tmp_path):
    """What runs on a device: one file, the packages of runtime, and onnx."""
    other = tmp_path / "device" / "model.onnx"
    other.parent.mkdir()
    shutil.copy(model, other)
    code = (
        "import sys\nsys.modules['torch'] = None\n"
        f"sys.path[0] = {str(ROOT)!r}\n"
        "from export.to_trt import main\nfrom mambapro.cli import run\n"
        f"sys.exit(run(main, ['--fp32', '--onnx', {str(other)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.returncode == EXIT_MISSING, done.stderr
    assert "lacks TensorRT, GPU, plugin" in done.stderr


def test_float32_is_the_reference_where_there_is_no_checkpoint(model, capsys):
    model.with_name("best.pt").unlink()
    assert to_trt.main([str(model), "--fp32", "--onnx-only", "--json"]) == 0
    ranking = last_line(capsys)["ranking"]
    assert ranking["reference"] == "model.onnx"
    assert ranking["map_drop_points"] == 0
    assert ranking["cosine_min"] == pytest.approx(1)


def test_a_file_of_another_network_is_made_again(model, caplog):
    half = to_trt.precision_file(model, "fp16")
    first = sha256(half)
    with caplog.at_level("INFO"):
        assert to_trt.precision_file(model, "fp16") == half
    assert "taking" in caplog.text
    assert sha256(half) == first
    other = onnx.load(str(half))
    write_spec(other, read_spec(half).replace(embedding_space="another"))
    onnx.save(other, str(half))
    to_trt.precision_file(model, "fp16")
    assert sha256(half) == first


class Shuffled:
    """An engine that confuses its triplets."""

    def __init__(self, engine: OnnxEngine):
        self.engine, self.spec = engine, engine.spec

    def embed(self, images, mask, camera):
        return np.roll(self.engine.embed(images, mask, camera), 1, axis=0)


def test_worse_ranking_is_refused(model):
    spec = read_spec(model)
    from export.evaluation_data import read_test_split
    from mambapro.config import ExperimentConfig, from_dict

    dataset = read_test_split(from_dict(ExperimentConfig, spec.training))
    engine = OnnxEngine(model, threads=1)
    assert check_ranking("same", engine, ("float32", engine), dataset, 0.0).overlap_at_10 == 1
    with pytest.raises(CheckError, match=r"loses .* points of mAP against float32 \(allowed 0.5\)"):
        check_ranking("shuffled", Shuffled(engine), ("float32", engine), dataset, 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fp16", "--onnx", "{model}"], "is fp32, not fp16"),
        (["--fp32", "{folder}/none.onnx"], "there is no model file"),
        (["--fp32", "{model}", "--output", "{folder}"], "is a folder"),
        (["--fp32", "{model}", "--data", "{folder}"], "give --data, or --no-ranking"),
        (["--fp32", "{model}", "--checkpoint", "{folder}/none.pt"], "there is no checkpoint"),
    ],
)
def test_bad_arguments_are_named(model, arguments, message):
    filled = [a.format(model=model, folder=model.parent) for a in arguments]
    with pytest.raises(InputError, match=message):
        to_trt.main([*filled, "--onnx-only"])


@pytest.mark.parametrize(
    ("onnx_name", "precision", "engine"),
    [
        ("model.onnx", "fp32", "model.fp32.engine"),
        ("model.int8.onnx", "int8", "model.int8.engine"),
        ("night.v2.fp16.onnx", "fp16", "night.v2.fp16.engine"),
        ("other.onnx", "int8", "other.int8.engine"),
    ],
)
def test_engines_are_named_after_their_precision(onnx_name, precision, engine):
    assert to_trt.engine_path(Path("runs", onnx_name), precision) == Path("runs", engine)


@pytest.mark.parametrize("batch", ["4", "0,1,2", "4,2,8", "a,b,c"])
def test_bad_batches_are_usage_errors(batch, capsys):
    with pytest.raises(SystemExit) as stop:
        to_trt.main(["--fp32", "--batch", batch])
    assert stop.value.code == 2
    assert "--batch" in capsys.readouterr().err


def test_a_file_without_our_metadata_is_refused(model):
    bare = onnx.load(str(model))
    del bare.metadata_props[:]
    onnx.save(bare, str(model))
    with pytest.raises(InputError, match=r"has no metadata 'mambapro\.spec'"):
        to_trt.main(["--fp32", str(model), "--onnx-only"])


def test_a_file_for_the_cpu_is_refused(model):
    changed = onnx.load(str(model))
    spec = read_spec(model).replace(precision="int8", calibration={"target": "cpu"})
    write_spec(changed, spec)
    onnx.save(changed, str(model))
    with pytest.raises(InputError, match="was quantised for cpu"):
        to_trt.main(["--int8", "--onnx", str(model)])


def test_an_unwritable_output_is_refused_before_any_work(model):
    output = "/proc/none/model.engine"
    assert run(to_trt.main, ["--fp32", str(model), "--onnx-only", "--output", output]) == 2


def test_functions_are_stripped_for_the_plugin(model):
    stripped = onnx.load_model_from_string(without_functions(model))
    assert not stripped.functions
    nodes = [node for node in stripped.graph.node if node.op_type == OP_NAME]
    assert nodes
    assert all({a.name for a in n.attribute} >= {"plugin_version"} for n in nodes)


def test_onnx_runtimes_tensorrt_provider_gets_the_plugin(model):
    content, options = prepare(model, Path("/lib/plugin.so"), 16)
    moved = onnx.load_model_from_string(content)
    assert {n.domain for n in moved.graph.node if n.op_type == OP_NAME} == {PLUGIN_DOMAIN}
    assert PLUGIN_DOMAIN in {item.domain for item in moved.opset_import}
    assert not moved.functions
    assert options["trt_extra_plugin_lib_paths"] == "/lib/plugin.so"
    assert options["trt_profile_max_shapes"] == "images:16x3x32x16x3,modality_mask:16x3,camera:16"
    content, options = prepare(model, None, 16)
    assert onnx.load_model_from_string(content).functions
    assert "trt_extra_plugin_lib_paths" not in options


# --- putting an engine in place, with the build itself replaced -----------------------------------


class FakeBuilt:
    plan, layers, timing_cache, build_s = b"plan", [], b"cache", 1.5


DEVICE = Device("Orin", (8, 7), "10.3.0.30", None)


@pytest.fixture
def builder(monkeypatch, model):
    """An engine file whose engine computes what ``answers`` returns."""
    import types

    module = types.ModuleType("export.trt_build")
    module.Batch = lambda *sizes: sizes
    module.Options = lambda **values: values
    module.build = lambda onnx_model, options: FakeBuilt
    module.count_precisions = lambda layers: {}
    monkeypatch.setitem(sys.modules, "export.trt_build", module)
    monkeypatch.setattr("export.trt_build", module, raising=False)
    monkeypatch.setattr(engine_file, "this_device", lambda with_plugin: DEVICE)

    class Engine:
        factor = 1.0

        def __init__(self, path):
            self.manifest = read_manifest(path)
            self.onnx = OnnxEngine(model, threads=1)
            self.spec = self.onnx.spec

        def embed(self, *inputs):
            noise = np.random.default_rng(0).standard_normal(self.spec.embedding_dim)
            return self.onnx.embed(*inputs) * self.factor + (1 - self.factor) * noise

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(engine_file, "TensorrtEngine", Engine)
    module.Engine = Engine
    return module


def request_for(model: Path) -> Request:
    return Request(model, read_spec(model), (1, 2, 4), 512, model.with_name("model.engine"))


def test_engine_and_manifest_appear_together(builder, model):
    request = request_for(model)
    engine_file.build_engine(request)
    manifest = read_manifest(request.output)
    assert request.output.read_bytes() == b"plan"
    assert manifest.device == DEVICE
    assert manifest.spec == request.spec
    assert manifest.source_sha256 == sha256(model)
    assert (manifest.batch, manifest.workspace_bytes) == ((1, 2, 4), 512_000_000)
    assert model.with_name(engine_file.TIMING_CACHE).read_bytes() == b"cache"
    assert {p.name for p in model.parent.iterdir()} == {
        "best.pt", "model.onnx", "model.engine", "model.engine.json", "tensorrt.timing-cache",
    }  # fmt: skip


@pytest.mark.parametrize("error", [KeyboardInterrupt, CheckError("no tactic")])
def test_a_build_that_ends_early_leaves_the_good_engine(builder, model, error):
    request = request_for(model)
    engine_file.build_engine(request)
    before = {p.name: sha256(p) for p in model.parent.iterdir()}

    def fail(*_):
        raise error

    builder.build = fail
    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        engine_file.build_engine(request)
    assert {p.name: sha256(p) for p in model.parent.iterdir()} == before


def test_an_engine_that_computes_something_else_is_not_put_in_place(builder, model):
    builder.Engine.factor = 0.2
    with pytest.raises(CheckError, match=r"least cosine .* allowed 0.99; nothing was written"):
        engine_file.build_engine(request_for(model))
    assert not list(model.parent.glob("model.engine*"))


# --- names of TensorRT's interface ---------------------------------------------------------------

CALLERS = ("export/trt_build.py", "runtime/engines/tensorrt_engine.py")
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "layer": "ILayer",
    "maker": "ILayer",
    "tensor": "ITensor",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "first": "ParserError",
    "_runtime": "Runtime",
}
"""Class of TensorRT behind each variable or attribute of that name in CALLERS."""


def used_names() -> set[tuple[str, ...]]:
    """Every chain like trt.Builder or builder.create_network in the two files that use TensorRT."""
    found = set()
    for caller in CALLERS:
        for node in ast.walk(ast.parse((ROOT / caller).read_text())):
            if isinstance(node, ast.Attribute):
                chain = ast.unparse(node).replace("self.", "").split(".")
                if chain[0] == "trt" and all(part.isidentifier() for part in chain[1:]):
                    found.add(tuple(chain[1:]))
                elif chain[0] in CLASSES and len(chain) == 2:
                    found.add((CLASSES[chain[0]], chain[1]))
    return found


PROBE = """
import json, sys, tensorrt_rtx
missing = []
for chain in json.loads(sys.argv[1]):
    thing = tensorrt_rtx
    for name in chain:
        thing = getattr(thing, name, missing)
    if thing is missing:
        missing.append(".".join(chain))
print(json.dumps(missing))
"""


def test_every_name_exists_in_the_bindings(tensorrt_rtx):
    names = used_names()
    assert {chain[0] for chain in names} >= set(CLASSES.values())
    assert ("IExecutionContext", "execute_async_v3") in names
    assert ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED") in names
    asked = json.dumps([*sorted(names), ("Builder", "no_such_name")])
    done = subprocess.run([tensorrt_rtx, "-c", PROBE, asked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["Builder.no_such_name"]
