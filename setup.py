"""The native build, on request: ``MAMBAPRO_BUILD_NATIVE=1 pip install .``; metadata is elsewhere.

The libraries land in mambapro/lib of the installed package, or for an editable installation in
build/lib of the checkout. What a part needs and is not there leaves that part out; CMake says why.
"""

import os
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
REQUESTED = os.environ.get("MAMBAPRO_BUILD_NATIVE", "0") == "1"


class BuildWithNative(build_py):
    """Builds the libraries with CMake and puts them beside the package's modules."""

    def run(self) -> None:
        """Copy the modules, then build."""
        super().run()
        if not REQUESTED:
            return
        build = ROOT / "build"
        configure = ["cmake", "--preset", "cpu", f"-DPython3_EXECUTABLE={sys.executable}"]
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
