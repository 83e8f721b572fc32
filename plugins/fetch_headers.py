"""Print a folder with the C headers of a runtime: ``python plugins/fetch_headers.py onnxruntime``.

Looked for in this order: the folder that an environment variable names, an installed SDK, the cache
(``~/.cache/mambapro``, or ``$XDG_CACHE_HOME/mambapro``). Else they are fetched into the cache and
held against the checksums below; no package is installed. Exit 3 says what was tried.

ONNX Runtime's come from Debian's libonnxruntime-dev by a private apt state, whose source is this
machine's own Debian entry with the suite replaced; TensorRT's from a Python wheel that carries
them. Standard library only: the build runs this with whatever python3 there is.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

EXIT_MISSING = 3
TIMEOUT_S = 180.0

DEBIAN_SUITE, DEBIAN_PACKAGE = "trixie", "libonnxruntime-dev"
WHEEL = "kernel-lens==2.0.1"
WHEEL_SHA256 = "07cc714e8b5e7f34b672f7c7fad93febe7c747be5837ba276b1527370134ffe0"


@dataclass(frozen=True)
class Headers:
    """What one runtime's adapter includes, and where it may be found."""

    main: str
    """A folder with this header is taken."""
    variable: str
    """Environment variable that names such a folder."""
    installed: tuple[str, ...]
    """Folders of an installed SDK; ``*`` stands for one folder name."""
    cached: str
    """Folder below the cache: the version is in its name."""
    checksums: dict[str, str]
    """SHA-256 of each header that is fetched."""
    fetch: Callable[[Path], None]
    """Puts the headers into an empty folder; raises UnavailableError."""
    advice: str


class UnavailableError(Exception):
    """The headers cannot be had this way; the message says why."""


def main(argv: list[str] | None = None) -> int:
    """Print the folder, or what was tried."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runtime", choices=sorted(RUNTIMES), help="whose headers")
    parser.add_argument(
        "--offline", action="store_true", help="look on this machine only (default: off)"
    )
    arguments = parser.parse_args(argv)
    try:
        print(find(RUNTIMES[arguments.runtime], offline=arguments.offline))
    except (UnavailableError, OSError, subprocess.SubprocessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_MISSING
    return 0


def find(headers: Headers, *, offline: bool = False) -> Path:
    """Return a folder that holds ``headers.main``; fetch it unless ``offline``."""
    named = os.environ.get(headers.variable)
    if named:
        if (Path(named) / headers.main).is_file():
            return Path(named)
        raise UnavailableError(f"{headers.variable}={named} holds no {headers.main}")
    places = [p for pattern in headers.installed for p in sorted(Path("/").glob(pattern[1:]))]
    cached = cache_folder() / headers.cached
    for place in [*places, cached]:
        if (place / headers.main).is_file():
            return place
    tried = ", ".join([*headers.installed, str(cached)])
    if offline:
        raise UnavailableError(f"no {headers.main} in {tried}; {headers.advice}")
    try:
        _fetch_into(cached, headers)
    except UnavailableError as error:
        raise UnavailableError(
            f"no {headers.main} in {tried}, and {error}; {headers.advice}"
        ) from error
    return cached


def cache_folder() -> Path:
    """Return where fetched headers are kept, outside of the checkout."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mambapro" / "headers"


def _fetch_into(folder: Path, headers: Headers) -> None:
    """Fetch aside, check, then rename: nothing unchecked is ever in the cache."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as name:
        aside = Path(name) / "headers"
        aside.mkdir()
        headers.fetch(aside)
        _check(aside, headers.checksums)
        try:
            aside.rename(folder)
        except OSError:  # another build was faster
            if not (folder / headers.main).is_file():
                raise


def _check(folder: Path, checksums: dict[str, str]) -> None:
    for name, expected in checksums.items():
        actual = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if actual != expected:
            raise UnavailableError(f"{name} has SHA-256 {actual}, expected {expected}")


# --- ONNX Runtime: a Debian package ---------------------------------------------------------------


def fetch_onnxruntime(folder: Path) -> None:
    """Take the C header out of the Debian package; apt checks signature and checksum of it."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise UnavailableError("this machine has no apt")
    with tempfile.TemporaryDirectory(prefix="mambapro-apt-") as name:
        state = Path(name)
        apt = ["apt-get", *_private_apt(state, debian_source())]
        _run("apt-get", [*apt, "-qq", "update"], state)
        _run("apt-get", [*apt, "-qq", "download", DEBIAN_PACKAGE], state)
        (package,) = state.glob(f"{DEBIAN_PACKAGE}_*.deb")
        _run("dpkg-deb", ["dpkg-deb", "--extract", str(package), str(state / "package")], state)
        (header,) = (state / "package").rglob(ONNXRUNTIME.main)
        shutil.copy(header, folder)


def debian_source(etc: Path = Path("/etc/apt")) -> str:
    """Return this machine's Debian entry in deb822 form with the suite replaced."""
    for path in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]:
        if path.suffix in (".sources", ".list") and path.is_file():
            for entry in _entries(path):
                uri = entry.get("URIs", "").split()[:1]
                if uri and re.search(r"/debian/?$", uri[0]):
                    kept = {"Types": "deb", "URIs": uri[0], "Suites": DEBIAN_SUITE}
                    kept["Components"] = "main"
                    if "Signed-By" in entry:
                        kept["Signed-By"] = entry["Signed-By"]
                    return "".join(f"{key}: {value}\n" for key, value in kept.items())
    raise UnavailableError(f"{etc} names no Debian archive")


def _entries(path: Path) -> list[dict[str, str]]:
    """Read a .sources file (paragraphs of fields) or a .list file (one entry a line)."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    if path.suffix == ".sources":
        paragraphs = re.split(r"\n\s*\n", "\n".join(lines))
        return [dict(re.findall(r"^([\w-]+):[ \t]*(\S.*)$", p, re.MULTILINE)) for p in paragraphs]
    entries = []
    for match in filter(None, (re.match(r"deb\s+(?:\[(.*?)\]\s*)?(\S+)", line) for line in lines)):
        options = dict(re.findall(r"([\w-]+)=(\S+)", match[1] or ""))
        keys = {"Signed-By": options["signed-by"]} if "signed-by" in options else {}
        entries.append({"URIs": match[2], **keys})
    return entries


def _private_apt(state: Path, source: str) -> list[str]:
    """Options that keep apt away from the machine's own lists, cache and sources."""
    for folder in ("lists/partial", "cache/archives/partial", "parts"):
        (state / folder).mkdir(parents=True)
    (state / "status").touch()
    (state / "debian.sources").write_text(source)
    settings = {
        "Dir::State::lists": state / "lists",
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
        "Dir::Etc::SourceList": state / "debian.sources",
        "Dir::Etc::SourceParts": state / "parts",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
    }
    return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]


# --- TensorRT: a wheel that carries the headers ---------------------------------------------------


def fetch_tensorrt(folder: Path) -> None:
    """Take the headers out of the wheel, which pip downloads and checks but does not install."""
    with tempfile.TemporaryDirectory(prefix="mambapro-wheel-") as name:
        wheels = Path(name)
        (wheels / "wanted.txt").write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download"]
        _run("pip", [*pip, "--no-deps", "--require-hashes", "-r", "wanted.txt", "-d", "."], wheels)
        (wheel,) = wheels.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if re.search(r"/include/tensorrt/Nv\w+\.h$", member):
                    (folder / Path(member).name).write_bytes(archive.read(member))


def _run(name: str, command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"{name} did not end within {TIMEOUT_S:.0f} s") from error
    if done.returncode:
        raise UnavailableError(f"{name} failed: {_reason(done.stderr or done.stdout)}")


def _reason(output: str) -> str:
    """The last line that is marked as an error, else the last one."""
    lines = output.strip().splitlines() or ["no message"]
    marked = [line for line in lines if line.startswith(("E:", "ERROR:"))]
    return (marked or lines)[-1]


ONNXRUNTIME = Headers(
    main="onnxruntime_c_api.h",
    variable="MAMBAPRO_ONNXRUNTIME_INCLUDE",
    installed=(
        "/usr/local/include/onnxruntime",
        "/usr/include/onnxruntime",
        "/opt/onnxruntime*/include",
    ),
    cached="onnxruntime-1.21.0",
    checksums={
        "onnxruntime_c_api.h": "7783e9664bdb0b1b36145b5c8587dd1bc9a399aa000edf2e3dd03003cafc6882"
    },
    fetch=fetch_onnxruntime,
    advice="unpack a release of ONNX Runtime and set MAMBAPRO_ONNXRUNTIME_INCLUDE to its include",
)
TENSORRT = Headers(
    main="NvInfer.h",
    variable="MAMBAPRO_TENSORRT_INCLUDE",
    installed=(
        "/usr/include/x86_64-linux-gnu",
        "/usr/include/aarch64-linux-gnu",
        "/usr/local/tensorrt/include",
        "/opt/tensorrt*/include",
    ),
    cached="tensorrt-10.14",
    checksums={
        "NvInfer.h": "c6f80c7a35999b68106d1a2be05e06275f2e04d1e23eaf17feaa46180b77f31c",
        "NvInferRuntime.h": "f98c5aa42512db944fff22e66b2e67fdc1ba65ca525be2cc9f2474f656f01356",
        "NvInferVersion.h": "950df353f2c1f5d322862e4fd407f5785fc994b146998574da3174dee85855fa",
    },
    fetch=fetch_tensorrt,
    advice="install TensorRT's development package or set MAMBAPRO_TENSORRT_INCLUDE",
)
RUNTIMES = {"onnxruntime": ONNXRUNTIME, "tensorrt": TENSORRT}

if __name__ == "__main__":
    sys.exit(main())
