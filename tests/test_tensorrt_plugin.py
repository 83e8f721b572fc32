"""The TensorRT plugin: its host logic in C++, and its library in TensorRT's registry."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.native.build import (
    CORE,
    EMULATED,
    EMULATED_SCAN,
    MEMORY_SANITIZERS,
    NATIVE,
    ROOT,
    compile_cpp,
    require,
)

PLUGIN = ROOT / "plugins" / "tensorrt" / "scan_tensorrt.cc"

# Runs in a process of its own, with the Python that has the runtime: load, find, create, refuse.
# (There, clone() is a stub for plugins written in Python: the C++ test clones.)
REGISTRY = """
import importlib, json, sys
import numpy as np
trt = importlib.import_module(sys.argv[1])
registry = trt.get_plugin_registry()
before = registry.get_creator("SelectiveScan", "1", "")
handle = registry.load_library(sys.argv[2])
creator = registry.get_creator("SelectiveScan", "1", "")
def create(fields, phase):
    kind = trt.PluginFieldType.INT32
    fields = [trt.PluginField(k, np.array(v, np.int32), kind) for k, v in fields]
    return creator.create_plugin("layer", trt.PluginFieldCollection(fields), phase)
build, run = trt.TensorRTPhase.BUILD, trt.TensorRTPhase.RUNTIME
plugin = create([], build)
print(json.dumps({
    "found_before": before is not None,
    "loaded": handle is not None,
    "name": creator.name,
    "version": creator.plugin_version,
    "namespace": creator.plugin_namespace,
    "fields": len(creator.field_names),
    "created": plugin is not None,
    "restored": create([("operator_version", [1])], run) is not None,
    "of_another_version": create([("operator_version", [2])], run) is not None,
    "without_version": create([], run) is not None,
}))
"""


@pytest.fixture(scope="module")
def headers() -> list[str]:
    """Return the flags for TensorRT's headers, fetched into the cache if need be."""
    command = [sys.executable, ROOT / "plugins" / "fetch_headers.py", "tensorrt"]
    done = subprocess.run(command, capture_output=True, text=True)
    require(done.returncode == 0, f"TensorRT headers: {done.stderr.strip()}")
    return ["-isystem", done.stdout.strip()]


def test_host_logic(headers, tmp_path):
    sources = [PLUGIN, *EMULATED_SCAN, NATIVE / "tensorrt_plugin_test.cc"]
    flags = [*EMULATED, *MEMORY_SANITIZERS, *headers]
    program = compile_cpp(tmp_path / "tensorrt_plugin_test", sources, flags)
    done = subprocess.run([program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "B must be (6, 5, 16), got (6, 5, 3)" in done.stderr
    assert "no size may be zero, got u (6, 0, 4) and A (2, 4, 16)" in done.stderr
    assert "CUDA error 9 at the launch for u of (6, 5, 4)" in done.stderr


def build_library(folder: Path, headers: list[str]) -> Path:
    """Build the plugin as TensorRT loads it: with nvcc, else over the emulated CUDA runtime."""
    output = folder / "libmambapro_tensorrt.so"
    flags = ["-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wl,--no-undefined", *headers]
    nvcc = shutil.which("nvcc")
    if not nvcc:
        return compile_cpp(output, [PLUGIN, *EMULATED_SCAN], [*EMULATED, *flags])
    common = [nvcc, "-std=c++17", "-O2", "-arch=sm_87", f"-I{CORE}", "-shared"]
    host = ["-Xcompiler", "-fPIC,-fvisibility=hidden,-Wall,-Wextra,-Werror", *headers]
    link = ["-Xlinker", "--no-undefined", "-o", output]
    done = subprocess.run(
        [*common, *host, CORE / "scan_cuda.cu", PLUGIN, *link], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def library(tmp_path_factory, headers) -> Path:
    return build_library(tmp_path_factory.mktemp("plugin"), headers)


@pytest.mark.slow
def test_library_stands_alone(library):
    """It exports the two entry points, and asks for no TensorRT or CUDA library."""
    read = [["nm", "-D", "--defined-only", library], ["readelf", "--dynamic", library]]
    require(shutil.which("nm") and shutil.which("readelf"), "binutils")
    exported, needed = (subprocess.run(c, capture_output=True, text=True).stdout for c in read)
    names = {line.split()[-1] for line in exported.splitlines()}
    assert {"getCreators", "setLoggerFinder"} <= names
    assert not [n for n in names if "mambapro" in n or "nvinfer" in n]
    wanted = [line for line in needed.splitlines() if "NEEDED" in line]
    assert wanted
    assert not [line for line in wanted if "nvinfer" in line or "cudart" in line]


@pytest.mark.slow
def test_registry_loads_the_library(library):
    default = ROOT / "build" / "tensorrt-rtx" / "bin" / "python"
    python = os.environ.get("MAMBAPRO_TENSORRT_PYTHON", str(default))
    require(shutil.which(python), "Python with tensorrt or tensorrt_rtx (make tensorrt-rtx)")
    find = "import importlib.util as u; print([m for m in {} if u.find_spec(m)][0])"
    modules = ["tensorrt", "tensorrt_rtx"]
    found = subprocess.run([python, "-c", find.format(modules)], capture_output=True, text=True)
    assert found.returncode == 0, f"{python} has none of {modules}"
    command = [python, "-c", REGISTRY, found.stdout.strip(), str(library)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "found_before": False,
        "loaded": True,
        "name": "SelectiveScan",
        "version": "1",
        "namespace": "",
        "fields": 0,
        "created": True,
        "restored": True,
        "of_another_version": False,
        "without_version": False,
    }
