"""The native build, on request: ``MAMBAPRO_BUILD_NATIVE=1 pip install .``; metadata is elsewhere.

In place of 1, the name of another of CMakePresets.json's: cuda, jetson-orin, jetson-thor. With
``--no-build-isolation`` the library for the environment's own PyTorch is built too.

The libraries land in mambapro/lib of the installed package, or for an editable installation in
build/lib of the checkout. What a part needs and is not there leaves that part out; CMake says why.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
REQUEST = os.environ.get("MAMBAPRO_BUILD_NATIVE", "0")
REQUESTED = REQUEST not in ("", "0")
PRESET = "cpu" if REQUEST == "1" else REQUEST


class BuildWithNative(build_py):
    """Builds the libraries with CMake and puts them beside the package's modules."""

    def run(self) -> None:
        """Copy the modules, then build."""
        super().run()
        if not REQUESTED:
            return
        if not shutil.which("cmake"):
            raise SystemExit(f"MAMBAPRO_BUILD_NATIVE={REQUEST} needs cmake and a C++ compiler")
        build = ROOT / "build"
        configure = ["cmake", "--preset", PRESET, f"-DPython3_EXECUTABLE={sys.executable}"]
        subprocess.run(configure, cwd=ROOT, check=True)
        subprocess.run(["cmake", "--build", str(build), "--parallel"], check=True)
        if not self.editable_mode:
            package = Path(self.build_lib) / "mambapro"
            subprocess.run(["cmake", "--install", str(build), "--prefix", str(package)], check=True)


class NativeDistribution(Distribution):
    """A wheel with compiled libraries fits one platform."""

    def has_ext_modules(self) -> bool:
        """Whether the wheel's name must carry the platform."""
        return REQUESTED


setup(cmdclass={"build_py": BuildWithNative}, distclass=NativeDistribution)
