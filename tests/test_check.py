"""python -m mambapro.check: the table, exit codes, and machines that lack things or have them."""

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

from mambapro import check, native
from mambapro.cli import run
from mambapro.contract import EXIT_DONE, EXIT_MISSING

ROOT = Path(__file__).parents[1]


def finding(name: str) -> check.Finding:
    (found,) = [f for f in check.look() if f.name == name]
    return found


def test_table_has_a_row_for_each_part_and_a_fix_for_what_is_missing(capsys):
    assert run(check.main, ["--json"]) == EXIT_DONE
    *rows, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert list(result) == sorted(check.LOOKS)
    starts = [row.split()[0] for row in rows if not row.startswith(" ")]
    assert starts == list(check.LOOKS)
    for name, facts in result.items():
        assert facts["name"] == name
        assert facts["present"] or facts["fix"] or name == "jetpack"
    assert result["python"]["present"]
    assert "CPUExecutionProvider" in result["onnxruntime"]["found"]
    assert "h264" in result["codecs"]["found"]


@pytest.mark.parametrize("missing", [["numpy"], ["numpy", "torch", "onnxruntime", "av", "cv2"]])
def test_it_works_without_packages(missing):
    """As on a box where an installation failed."""
    code = (
        f"import sys\nfor name in {missing!r}: sys.modules[name] = None\n"
        "from mambapro.check import main\nsys.exit(main(['--json']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == EXIT_DONE, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert not result["onnxruntime"]["present"]
    assert "pip install onnxruntime" in result["onnxruntime"]["fix"]


def test_it_runs_as_a_module_anywhere(tmp_path):
    command = [sys.executable, "-m", "mambapro.check", "--require", "python"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == EXIT_DONE, done.stderr


def test_what_is_required_decides_the_exit_code(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv(native.FOLDER, str(tmp_path))
    assert run(check.main, ["--require", "python", "plugin"]) == EXIT_MISSING
    error = capsys.readouterr().err
    assert "plugin: no native library for tensorrt" in error
    assert native.GPU_ADVICE in error
    assert "python:" not in error
    with pytest.raises(SystemExit) as stop:
        check.main(["--require", "gp"])
    assert stop.value.code == 2


def test_a_library_that_does_not_load_is_no_plugin(monkeypatch, tmp_path):
    monkeypatch.setenv(native.FOLDER, str(tmp_path))
    (tmp_path / "libmambapro_tensorrt.so").write_text("not a library")
    (tmp_path / "libmambapro_onnxruntime.so").write_text("not a library")
    for name in ("plugin", "scan"):
        found = finding(name)
        assert not found.present
        assert "invalid ELF header" in found.found or "file too short" in found.found


class Driver:
    """libcuda.so.1 with one GPU."""

    def __init__(self, count: int = 1, started: int = 0):
        self.count, self.started = count, started

    def cuInit(self, flags):  # noqa: N802
        return self.started

    def cuDeviceGetCount(self, count):  # noqa: N802
        count._obj.value = self.count
        return 0

    def cuDriverGetVersion(self, version):  # noqa: N802
        version._obj.value = 12060
        return 0

    def cuDeviceGet(self, device, index):  # noqa: N802
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name, size, device):  # noqa: N802
        name.value = b"Orin"
        return 0

    def cuDeviceGetAttribute(self, number, attribute, device):  # noqa: N802
        number._obj.value = {75: 8, 76: 7}[attribute]
        return 0


def test_a_gpu_is_described(monkeypatch):
    monkeypatch.setattr(check.ctypes, "CDLL", lambda name: Driver())
    found = check.look_for_gpu()
    assert found.present
    assert found.found == "Orin (compute capability 8.7); driver for CUDA 12.6"


@pytest.mark.parametrize("driver", [Driver(count=0), Driver(started=100)])
def test_a_driver_without_a_gpu_is_none(monkeypatch, driver):
    monkeypatch.setattr(check.ctypes, "CDLL", lambda name: driver)
    found = check.look_for_gpu()
    assert not found.present
    assert "--runtime nvidia" in found.fix


def test_attribute_numbers_are_the_drivers():
    header = Path("/usr/local/cuda/include/cuda.h")
    if not header.is_file():
        pytest.skip("no CUDA toolkit")
    text = header.read_text(errors="replace")
    for name, value in (("MAJOR", check._MAJOR), ("MINOR", check._MINOR)):
        assert f"CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_{name} = {value}," in text


@pytest.mark.parametrize(
    ("version", "present"), [("10.3.0.30", True), ("11.4.0", True), ("8.6.1", False)]
)
def test_tensorrt_is_held_against_the_least_version(monkeypatch, version, present):
    module = types.SimpleNamespace(__version__=version)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    found = check.look_for_tensorrt()
    assert found.present is present
    assert present or "10.3" in found.fix


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# R36 (release), REVISION: 4.3, BOARD: generic", "Jetson Linux 36.4.3, JetPack 6.2"),
        ("# R36 (release), REVISION: 4.4, GCID: 1", "Jetson Linux 36.4.4, JetPack 6.2.1"),
        ("# R38 (release), REVISION: 2.1, GCID: 1", "Jetson Linux 38.2.1, JetPack 7.0"),
        ("# R39 (release), REVISION: 0.0, GCID: 1", "Jetson Linux 39.0.0"),
        ("# something else", "unknown release: # something else"),
    ],
)  # fmt: skip
def test_jetpack_is_read_from_the_release_file(monkeypatch, tmp_path, text, expected):
    monkeypatch.setattr(check, "TEGRA_RELEASE", tmp_path / "nv_tegra_release")
    assert not check.look_for_jetpack().present
    check.TEGRA_RELEASE.write_text(text + "\n")
    assert check.look_for_jetpack().found == expected


def test_cameras_are_named_and_closed_ones_get_a_fix(monkeypatch, tmp_path):
    monkeypatch.setattr(check, "VIDEO", tmp_path)
    assert not check.look_for_cameras().present
    (tmp_path / "video0").mkdir()
    (tmp_path / "video0" / "name").write_text("Thermal\n")
    found = check.look_for_cameras()  # there is no /dev/video0 here, or it may be read
    assert "/dev/video0 (Thermal)" in found.found
    assert found.present or "usermod" in found.fix
