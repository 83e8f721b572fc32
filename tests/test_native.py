"""Finding the native libraries, fetching headers, and the build."""

import hashlib
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mambapro import native
from mambapro.cli import InputError, MissingError
from plugins import fetch_headers
from runtime.engines import OnnxEngine, onnx_engine
from tests.export_samples import exported
from tests.native.build import require

ROOT = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(native.FOLDER, str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("part", ["torch", "onnxruntime", "tensorrt"])
def test_the_named_folder_is_the_only_one(folder, part):
    assert native.find_library(part) is None
    built = folder / f"libmambapro_{part}.so"
    built.touch()
    assert native.find_library(part) == built
    assert native.require_library(part) == built


def test_missing_library_names_the_paths_tried(folder, monkeypatch):
    with pytest.raises(
        MissingError, match=f"tried {folder}/libmambapro_onnxruntime.so; .*preset cpu"
    ):
        native.require_library("onnxruntime")
    with pytest.raises(
        MissingError, match=f"tried {folder}/libmambapro_tensorrt.so; .*preset cuda"
    ):
        native.require_library("tensorrt")
    monkeypatch.delenv(native.FOLDER)
    assert str(ROOT / "build" / "lib") in native.missing("onnxruntime")


def test_switch(folder, monkeypatch):
    (folder / "libmambapro_torch.so").touch()
    monkeypatch.setenv(native.SWITCH, "off")
    assert native.find_library("torch") is None
    with pytest.raises(MissingError, match="switched off by MAMBAPRO_NATIVE=off"):
        native.require_library("torch")
    monkeypatch.setenv(native.SWITCH, "maybe")
    with pytest.raises(InputError, match="must be on or off, got 'maybe'"):
        native.find_library("torch")


def test_library_says_which_providers_it_serves(monkeypatch, folder):
    with pytest.raises(MissingError, match=r"does not load: .*preset cpu"):
        native.providers(folder / "libmambapro_onnxruntime.so")
    monkeypatch.delenv(native.FOLDER)
    built = native.find_library("onnxruntime")
    require(built, "native library for ONNX Runtime (make build)")
    assert native.providers(built)[0] == "CPUExecutionProvider"
    other = native.find_library("torch")
    require(other, "native library for torch (make build)")
    with pytest.raises(MissingError, match="undefined symbol: MambaproProviders"):
        native.providers(other)


def test_engine_says_once_which_path_runs(folder, caplog):
    onnx_engine._announce.cache_clear()
    with caplog.at_level(logging.INFO, "runtime.engines"):
        for _ in range(2):
            OnnxEngine(exported()[0].path, threads=1)
    (record,) = caplog.records
    assert "the loop in the file, ten times slower" in record.getMessage()
    assert str(folder) in record.getMessage()


def test_engine_refuses_a_library_that_does_not_load(folder):
    (folder / "libmambapro_onnxruntime.so").write_text("not a library")
    with pytest.raises(MissingError, match=r"does not load.*preset cpu.*MAMBAPRO_NATIVE=off"):
        OnnxEngine(exported()[0].path, threads=1)


# --- headers -------------------------------------------------------------------------------------


def headers(content: bytes = b"#pragma once\n", **changes) -> fetch_headers.Headers:
    def fetch(to: Path) -> None:
        (to / "runtime.h").write_bytes(content)

    return replace(
        fetch_headers.ONNXRUNTIME,
        main="runtime.h",
        installed=(),
        cached="runtime-1",
        checksums={"runtime.h": hashlib.sha256(b"#pragma once\n").hexdigest()},
        fetch=fetch,
        **changes,
    )


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MAMBAPRO_ONNXRUNTIME_INCLUDE", raising=False)
    return tmp_path / "cache" / "mambapro" / "headers"


def test_headers_are_fetched_once(cache):
    assert fetch_headers.find(headers()) == cache / "runtime-1"
    unavailable = headers(content=b"never fetched again")
    assert fetch_headers.find(unavailable) == cache / "runtime-1"


def test_headers_with_another_checksum_never_reach_the_cache(cache):
    with pytest.raises(fetch_headers.UnavailableError, match=r"runtime.h has SHA-256 .* expected"):
        fetch_headers.find(headers(content=b"changed"))
    assert not list(cache.iterdir())


def test_named_and_installed_headers_come_first(cache, tmp_path, monkeypatch):
    installed = tmp_path / "sdk-2" / "include"
    installed.mkdir(parents=True)
    (installed / "runtime.h").touch()
    found = replace(headers(), installed=(f"{tmp_path}/sdk-*/include",))
    assert fetch_headers.find(found) == installed
    monkeypatch.setenv("MAMBAPRO_ONNXRUNTIME_INCLUDE", str(tmp_path))
    with pytest.raises(fetch_headers.UnavailableError, match=r"holds no runtime\.h"):
        fetch_headers.find(found)


def test_offline_says_where_it_looked(cache, capsys, monkeypatch):
    monkeypatch.setitem(fetch_headers.RUNTIMES, "onnxruntime", headers())
    assert fetch_headers.main(["onnxruntime", "--offline"]) == fetch_headers.EXIT_MISSING
    assert str(cache / "runtime-1") in capsys.readouterr().err


def test_a_failing_tool_is_quoted_by_its_error(tmp_path, monkeypatch):
    script = "print('ERROR: no such thing'); print('a hint'); raise SystemExit(1)"
    with pytest.raises(fetch_headers.UnavailableError, match=r"pip failed: ERROR: no such thing$"):
        fetch_headers._run("pip", [sys.executable, "-c", script], tmp_path)
    monkeypatch.setattr(fetch_headers, "TIMEOUT_S", 0.1)
    with pytest.raises(fetch_headers.UnavailableError, match="pip did not end within"):
        fetch_headers._run("pip", [sys.executable, "-c", "import time; time.sleep(9)"], tmp_path)


SOURCES = """# a comment
Types: deb
URIs: http://deb.example.org/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian.gpg

Types: deb
URIs: http://deb.example.org/debian-security
Suites: bookworm-security
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("debian.sources", SOURCES),
        (
            "debian.list",
            "deb [arch=amd64 signed-by=/usr/share/keyrings/debian.gpg] "
            "http://deb.example.org/debian bookworm main\n",
        ),
    ],
)
def test_debian_entry_keeps_archive_and_key(tmp_path, name, text):
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / name).write_text(text)
    assert fetch_headers.debian_source(tmp_path) == (
        "Types: deb\nURIs: http://deb.example.org/debian\nSuites: trixie\nComponents: main\n"
        "Signed-By: /usr/share/keyrings/debian.gpg\n"
    )


def test_no_debian_archive_is_said(tmp_path):
    with pytest.raises(fetch_headers.UnavailableError, match="names no Debian archive"):
        fetch_headers.debian_source(tmp_path)


# --- the build -----------------------------------------------------------------------------------


def cmake(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["cmake", *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)


@pytest.fixture
def needs_cmake():
    require(shutil.which("cmake") and shutil.which("c++"), "cmake and C++ compiler")


@pytest.mark.slow
def test_neon_passes_the_native_tests_under_qemu(needs_cmake, tmp_path):
    """The code of the Jetsons, by another machine's instructions; the adapter is compiled only."""
    cross = shutil.which("aarch64-linux-gnu-g++") and shutil.which("qemu-aarch64")
    require(cross, "g++-aarch64-linux-gnu and qemu-user")
    configured = cmake("--preset", "aarch64", "-B", tmp_path)
    assert configured.returncode == 0, configured.stderr
    targets = ("functions_test", "scan_test", "tokens_test", "mambapro_onnxruntime")
    built = cmake("--build", tmp_path, "--parallel", "2", "--target", *targets)
    assert built.returncode == 0, built.stdout
    command = ["ctest", "--test-dir", tmp_path, "-L", "cpu", "--verbose"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "100% tests passed, 0 tests failed out of 3" in done.stdout
    assert done.stdout.count(": neon\n") == 3


def test_parts_say_why_they_are_left_out(needs_cmake, tmp_path):
    options = [f"-DMAMBAPRO_BUILD_{part}=OFF" for part in ("CUDA", "TENSORRT", "TESTS", "TORCH")]
    empty = f"-DMAMBAPRO_ONNXRUNTIME_INCLUDE={tmp_path}"
    done = cmake("-S", ROOT, "-B", tmp_path / "build", *options, empty)
    assert done.returncode == 0, done.stderr
    assert "PyTorch operator        left out: switched off" in done.stdout
    assert f"ONNX Runtime operator   built with {tmp_path}" in done.stdout


def test_without_nvcc_the_cuda_parts_are_left_out(needs_cmake, tmp_path):
    options = ["-DMAMBAPRO_BUILD_TORCH=OFF", f"-DMAMBAPRO_ONNXRUNTIME_INCLUDE={tmp_path}"]
    command = [
        "cmake",
        "-S",
        ROOT,
        "-B",
        tmp_path / "build",
        *options,
        "-DMAMBAPRO_BUILD_TESTS=OFF",
    ]
    environment = {**os.environ, "CUDACXX": "/nowhere/nvcc"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    reason = "left out: no nvcc; put it on PATH or set CUDACXX"
    assert f"CUDA kernels            {reason}\n" in done.stdout
    assert "TensorRT plugin         left out: it needs the CUDA kernels\n" in done.stdout


def test_a_part_that_must_be_built_fails_without_its_needs(needs_cmake, tmp_path):
    options = ["-DMAMBAPRO_BUILD_TORCH=ON", "-DPython3_EXECUTABLE=/usr/bin/false"]
    done = cmake("-S", ROOT, "-B", tmp_path, *options)
    assert done.returncode != 0
    assert "MAMBAPRO_BUILD_TORCH=ON, but" in done.stderr
    done = cmake("-S", ROOT, "-B", tmp_path, "-DMAMBAPRO_BUILD_TORCH=maybe")
    assert "must be AUTO, ON or OFF, got maybe" in done.stderr
