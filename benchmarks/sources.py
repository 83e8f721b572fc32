"""What live cameras cost before anything is detected: ``python benchmarks/sources.py``.

Serves the demo's scene over RTSP on loopback, 25 frames a second a camera, reads all of its cameras
as the runtime does, and measures the CPU time of this process: receiving, decoding, and conversion
to RGB. ``--record`` writes benchmarks/results/sources.json and the figures of docs/reliability.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.readme import replace_table
from mambapro.cli import InputError, add_common_arguments, print_json_line, run, start_logging
from mambapro.contract import EXIT_DONE
from mambapro.environment import environment
from mambapro.files import in_checkout, write_json
from runtime.config import SourceConfig
from runtime.sources import Frame, Source, open_source
from tests.rtsp import RtspServer

SCENE: Final = in_checkout("data/synthetic/scene")
RESULT: Final = in_checkout("benchmarks/results/sources.json")
PAGE: Final = in_checkout("docs/reliability.md")
HEADER: Final = ("transport", "cameras", "frames a second", "dropped", "CPU s a second", "a camera")
WARM_UP_S: Final = 2.0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure both transports; print one line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_arguments(parser)
    parser.add_argument(
        "--seconds", type=float, default=15.0, help="time a transport (default: 15)"
    )
    parser.add_argument("--record", action="store_true", help="keep the figures")
    arguments = parser.parse_args(argv)
    start_logging(arguments.verbose)
    clips = {f"{p.parent.name}-{p.stem}": p for p in sorted(SCENE.glob("*/*.mp4"))}
    if not clips:
        raise InputError(f"{SCENE} holds no clips; make them with: make {SCENE}/rigs.yaml")
    with tempfile.TemporaryDirectory() as folder, RtspServer(clips, Path(folder)) as server:
        uris = [server.url(mount) for mount in clips]
        results = {t: measure(uris, t, arguments.seconds) for t in ("tcp", "udp")}
    rows = [(transport, *cells(result)) for transport, result in results.items()]
    for row in (HEADER, *rows):
        print("  ".join(cell.rjust(max(9, len(h))) for h, cell in zip(HEADER, row, strict=True)))
    if arguments.record:
        write_json(RESULT, {"environment": environment(), "transports": results})
        replace_table(PAGE, "sources", HEADER, rows)
    if arguments.json:
        print_json_line(results)
    return EXIT_DONE


def measure(uris: Sequence[str], transport: str, seconds: float) -> dict[str, Any]:
    """Read all ``uris`` for ``seconds``; return counts and CPU time."""
    config = SourceConfig(transport="udp" if transport == "udp" else "tcp")
    sources = [open_source(uri, config) for uri in uris]
    stop = threading.Event()
    counts = [0] * len(sources)
    readers = [
        threading.Thread(target=drain, args=(source, counts, i, stop))
        for i, source in enumerate(sources)
    ]
    for reader in readers:
        reader.start()
    time.sleep(WARM_UP_S)
    before, begun_s, cpu_s = sum(counts), time.monotonic(), time.process_time()
    time.sleep(seconds)
    frames, took_s, cpu_s = (
        sum(counts) - before, time.monotonic() - begun_s, time.process_time() - cpu_s,
    )  # fmt: skip
    dropped = sum(source.status().dropped for source in sources)
    stop.set()
    for reader, source in zip(readers, sources, strict=True):
        reader.join()
        source.close()
    return {
        "cameras": len(sources),
        "frames_per_s": frames / took_s,
        "dropped": dropped,
        "cpu_s_per_s": cpu_s / took_s,
        "cpu_s_per_camera_s": cpu_s / took_s / len(sources),
        "cores": os.cpu_count(),
    }


def drain(source: Source, counts: list[int], index: int, stop: threading.Event) -> None:
    """Take what ``source`` gives and count it."""
    while not stop.is_set():
        counts[index] += isinstance(source.read(0.1), Frame)


def cells(result: dict[str, Any]) -> list[str]:
    """Return the cells of one row."""
    return [
        str(result["cameras"]),
        f"{result['frames_per_s']:.1f}",
        str(result["dropped"]),
        f"{result['cpu_s_per_s']:.2f}",
        f"{result['cpu_s_per_camera_s']:.3f}",
    ]


if __name__ == "__main__":
    sys.exit(run(main))
