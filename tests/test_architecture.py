"""The import arrows of docs/architecture.md, and what a camera box must not need."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ARROWS = {
    "mambapro": {"mambapro"},
    "train": {"train", "mambapro"},
    "calibration": {"calibration", "mambapro"},
    "runtime": {"runtime", "mambapro"},
    "export": {"export", "mambapro", "calibration", "runtime"},
}
STAGES = set(ARROWS) | {"tests", "benchmarks"}
WITH_TORCH = ("mambapro.model", "mambapro.ops")
ENTRY_FILES = (
    "train/main.py", "train/visualize.py", "train/accounting.py", "export/to_onnx.py",
    "export/to_fp16.py", "export/to_int8.py", "export/to_trt.py", "export/compare.py",
    "runtime/stream.py", "runtime/manage_gallery.py",
    "calibration/registration.py", "calibration/threshold.py", "calibration/camera_graph.py",
)  # fmt: skip


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Every module an import statement of the file names, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("folder", ARROWS)
def test_import_arrows(folder):
    paths = sources(folder)
    assert paths
    for path in paths:
        ours = {name.split(".")[0] for name in imported(path)} & STAGES
        assert ours <= ARROWS[folder], f"{path.relative_to(ROOT)} imports {ours - ARROWS[folder]}"


def test_the_torch_free_half_of_the_library_names_no_torch():
    for folder in ("mambapro", "runtime", "calibration"):
        for path in sources(folder):
            if not module_name(path).startswith(WITH_TORCH):
                bad = {n for n in imported(path) if n.split(".")[0] == "torch"}
                bad |= {n for n in imported(path) if n.startswith(WITH_TORCH)}
                assert not bad, f"{path.relative_to(ROOT)} imports {bad}"


NO_TORCH = """
import importlib, sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError("this process has no torch")

sys.meta_path.insert(0, NoTorch())
sys.path[0] = {root!r}
for name in {names!r}:
    importlib.import_module(name)
assert not [name for name in sys.modules if name.split(".")[0] == "torch"]
from runtime.stream import main
try:
    main(["--help"])
except SystemExit as stop:
    assert stop.code == 0
"""


def test_runtime_and_calibration_work_without_torch():
    paths = [p for f in ("mambapro", "runtime", "calibration") for p in sources(f)]
    names = [module_name(p) for p in paths if p.name != "__main__.py"]
    names = [name for name in names if not name.startswith(WITH_TORCH)]
    assert {"runtime.stream", "runtime.engines", "calibration.threshold"} <= set(names)
    code = NO_TORCH.format(root=str(ROOT), names=names)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


def test_onnx_runtime_is_told_not_to_report_before_it_is_imported():
    """From 1.29 on it sends facts of the model to Microsoft; the choice is made at its import."""
    using = {
        path.relative_to(ROOT).parts[0]
        for folder in STAGES
        for path in sources(folder)
        if {name.split(".")[0] for name in imported(path)} & {"onnxruntime"}
    }
    assert {"runtime", "calibration", "export"} <= using
    for folder in using - {"mambapro"}:
        assert "mambapro" in imported(ROOT / folder / "__init__.py"), folder
    code = "import os, mambapro; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for given, expected in (({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")):
        kept = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT,
            env={**kept, **given},
        )  # fmt: skip
        assert done.stdout.strip() == expected, done.stderr


@pytest.mark.parametrize("entry", ENTRY_FILES)
def test_commands_run_from_anywhere(entry, tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / entry), "--help"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "--json" in done.stdout


@pytest.mark.parametrize("entry", ENTRY_FILES)
def test_every_flag_has_help(entry):
    """A flag without help prints nothing beside its name."""
    for node in ast.walk(ast.parse((ROOT / entry).read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            assert "help" in {keyword.arg for keyword in node.keywords}, ast.unparse(node)


def test_no_module_is_named_like_a_dependency_or_a_standard_module():
    """A script's own folder must not shadow what it imports."""
    for folder in ARROWS:
        for path in sources(folder):
            if path.stem not in ("__init__", "__main__"):
                assert path.stem not in sys.stdlib_module_names, path
                assert path.stem not in ("cv2", "numpy", "torch", "onnx", "av", "yaml"), path
