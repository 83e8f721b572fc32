"""Six cameras on loopback, to rehearse docs/operate.md without any: ``make cameras``.

They play the demo's scene live by RTSP, round and round, at the addresses of
``configs/rigs/rehearsal.yaml``. A line on stdin makes one fail: ``freeze gate-tir``, ``thaw
gate-tir``, ``jump gate-nir 5``. Ctrl-C ends all.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from mambapro.cli import InputError, MissingError, run
from mambapro.contract import EXIT_DONE
from mambapro.files import in_checkout
from runtime.config import load_rigs
from tests.live_run import mounts
from tests.rtsp import PACKAGES, RtspServer, why_no_rtsp_server

RIGS: Final = in_checkout("configs/rigs/rehearsal.yaml")
SCENE: Final = in_checkout("data/synthetic/scene")
CONVERTED: Final = in_checkout("runs/cameras")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C; obey stdin."""
    scene = _parser().parse_args(argv).scene
    if not (scene / "rigs.yaml").is_file():
        raise InputError(f"{scene} holds no scene: python -m mambapro.synthetic --scene {scene}")
    if why := why_no_rtsp_server():
        raise MissingError(f"the cameras need GStreamer: apt install {PACKAGES} ({why})")
    CONVERTED.mkdir(parents=True, exist_ok=True)
    uris = [c.uri for rig in load_rigs(RIGS) for c in rig.cameras.values()]
    login, port = login_and_port(uris[0])
    print(f"preparing the clips of {scene} ...", flush=True)
    try:
        with RtspServer(mounts(scene), CONVERTED, login, port) as server:
            print(*uris, "freeze, thaw or jump one, such as: freeze gate-tir", sep="\n", flush=True)
            serve(server, {urlsplit(uri).path[1:] for uri in uris})
    except RuntimeError as error:
        raise InputError(f"{error}: port {port} may be taken, by other cameras?") from error
    return EXIT_DONE


def login_and_port(uri: str) -> tuple[str, int]:
    """Return what the cameras have in common: user:password, and the port."""
    address = urlsplit(uri)
    return f"{address.username}:{address.password}", address.port or 0


def serve(server: RtspServer, cameras: set[str]) -> None:
    """Obey the lines of stdin until Ctrl-C; the end of stdin is not the end."""
    for line in sys.stdin:
        print(obey(server, cameras, line.split()), flush=True)
    threading.Event().wait()


def obey(server: RtspServer, cameras: set[str], words: Sequence[str]) -> str:
    """Do what a line says; return what to answer."""
    acts: dict[str, tuple[int, Callable[..., None]]] = {
        "freeze": (0, server.freeze),
        "thaw": (0, server.thaw),
        "jump": (1, lambda camera, seconds: server.jump(camera, float(seconds))),
    }
    try:
        command, camera, *rest = words
        count, act = acts[command]
        if camera not in cameras or len(rest) != count:
            raise ValueError
        act(camera, *rest)
    except (ValueError, KeyError):
        return f"say {', '.join(acts)} and one of {', '.join(sorted(cameras))}; jump takes seconds"
    return "done"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--scene", type=Path, default=SCENE, metavar="DIR",
        help="what `python -m mambapro.synthetic --scene` wrote (default: data/synthetic/scene)",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
