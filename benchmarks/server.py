"""How long a search over HTTP takes: ``python benchmarks/server.py``.

Fills the gallery of the demo's person model with 20,000 templates of 1,000 identities, starts the
stream on rigs of the pattern, and uploads triplets of the size of crops, one after the other and
four at a time, while the run has one rig, and six cameras. In the same run: the parts of a search,
and how many triplets the live run gave while it was searched and while it was not. ``--record``
writes benchmarks/results/server.json and the table of docs/server.md.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import cv2
import numpy as np
import requests
import yaml
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.fuzz_api import MODEL, live_run
from benchmarks.gallery import DIM, SPEC, Floats, records, sample
from benchmarks.readme import replace_table
from mambapro.cli import add_common_arguments, print_json_line, run, start_logging
from mambapro.contract import EXIT_CHECK_FAILED, EXIT_DONE, MODALITIES
from mambapro.environment import environment
from mambapro.files import in_checkout, write_json
from mambapro.spec import ModelSpec
from runtime.config import GalleryConfig
from runtime.engines import open_engine
from runtime.gallery import open_gallery
from runtime.identity.embedding import embed
from runtime.server.uploads import picture_of

RESULT: Final = in_checkout("benchmarks/results/server.json")
DOCUMENT: Final = in_checkout("docs/server.md")
CROP_PX: Final = (256, 128)
IDENTITY: Final = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
CLIENTS: Final = 4
LIMIT: Final = 200
"""Templates that a search for ten identities looks at."""
SETTLE_S: Final = 6.0
MOST_MS: Final = 50.0
"""Longest that 95 of 100 searches of one client may take."""
HEADER: Final = ("figure", "measured", "needed")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; print the table; exit 1 when searches are too slow."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    spec = open_engine(MODEL).spec
    templates = sample(np.random.default_rng(0), arguments.templates, spec.embedding_dim)
    result: dict[str, Any] = {"templates": len(templates), "embedding_dim": spec.embedding_dim}
    for name, rigs in (("1 camera", 0), ("6 cameras", 2)):
        with tempfile.TemporaryDirectory(prefix="server.") as folder:
            fill(Path(folder), templates, spec)
            result[name] = measure(Path(folder), rigs, arguments.searches)
    result["parts"] = parts(templates, spec, arguments.searches)
    result["parts"][f"look up among {DIM} channels"] = look_ups(
        arguments.templates, arguments.searches
    )
    rows = table(result)
    for name, figure, needed in rows:
        print(f"{name:60} {figure:>12} {needed:>14}")
    if arguments.record:
        write_json(RESULT, {"environment": environment(), **result})
        replace_table(DOCUMENT, "server", HEADER, rows)
    if arguments.json:
        print_json_line(result)
    slow = any(result[name]["one_ms"]["p95"] > MOST_MS for name in ("1 camera", "6 cameras"))
    return EXIT_CHECK_FAILED if slow else EXIT_DONE


def fill(folder: Path, templates: Floats, spec: ModelSpec) -> None:
    """Keep ``templates`` in the gallery of an output folder."""
    config = GalleryConfig(keep=True, capacity=len(templates))
    with contextlib.closing(open_gallery(folder / "gallery" / "person", spec, config)) as gallery:
        facts, _ = gallery.contents()
        gallery.admit(facts, records(templates))


def measure(folder: Path, rigs: int, searches: int) -> dict[str, Any]:
    """Return how long searches take over HTTP, and what the run gives meanwhile."""
    file = folder / "rigs.yaml"
    file.write_text(yaml.safe_dump({"rigs": [rig(n) for n in range(rigs)] or [one_camera()]}))
    with live_run(folder, file) as url:
        time.sleep(SETTLE_S)
        uploads = [triplet(number) for number in range(8)]
        alone = triplets_per_s(url, SETTLE_S)
        before, began_s = triplets(url), time.monotonic()
        with requests.Session() as session, ThreadPoolExecutor(CLIENTS) as pool:
            one = [timed(session, url, uploads[n % 8]) for n in range(searches)]
            many = list(pool.map(lambda n: timed(session, url, uploads[n % 8]), range(searches)))
        searched = (triplets(url) - before) / (time.monotonic() - began_s)
    return {
        "one_ms": quantiles(one),
        "four_ms": quantiles(many),
        "triplets_per_s": alone,
        "triplets_per_s_while_searched": searched,
    }


def parts(templates: Floats, spec: ModelSpec, searches: int) -> dict[str, Any]:
    """Return how long decoding, embedding and looking up take by themselves, ms."""
    engine = open_engine(MODEL, threads=2)
    files = triplet(0)
    config = GalleryConfig(keep=True, capacity=len(templates))
    found: dict[str, list[float]] = {"decode": [], "embed": [], "look up": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(open_gallery(Path(folder), spec, config)) as gallery,
    ):
        gallery.admit(gallery.contents()[0], records(templates))
        for _ in range(searches):
            marks = [time.perf_counter()]
            crops = {m: picture_of(m, files[m][1]) for m in MODALITIES}
            marks.append(time.perf_counter())
            (embedding,) = embed(engine, [crops], [-1])
            marks.append(time.perf_counter())
            gallery.candidates(embedding, 1, limit=LIMIT)
            marks.append(time.perf_counter())
            for name, took_s in zip(found, np.diff(marks), strict=True):
                found[name].append(float(took_s) * 1e3)
    return {name: quantiles(times) for name, times in found.items()}


def look_ups(count: int, searches: int) -> dict[str, float]:
    """Return how long it takes to look up among ``count`` embeddings of the full size, ms."""
    templates = sample(np.random.default_rng(0), count)
    times = []
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(
            open_gallery(Path(folder), SPEC, GalleryConfig(keep=True, capacity=count))
        ) as gallery,
    ):
        gallery.admit(gallery.contents()[0], records(templates))
        for query in templates[:searches]:
            began = time.perf_counter()
            gallery.candidates(query, 1, limit=LIMIT)
            times.append((time.perf_counter() - began) * 1e3)
    return quantiles(times)


def timed(session: requests.Session, url: str, files: dict[str, Any]) -> float:
    """Search once; return how long it took, ms."""
    began = time.perf_counter()
    answer = session.post(f"{url}/api/search", files=files, data={"subject": "person"}, timeout=30)
    took_s = time.perf_counter() - began
    answer.raise_for_status()
    assert answer.json()
    return took_s * 1e3


def triplet(number: int) -> dict[str, Any]:
    """Return JPEG files of a made-up crop in all modalities."""
    draw = np.random.default_rng(number)
    rough = draw.integers(0, 256, (8, 4, 3)).astype(np.uint8)
    picture = cv2.resize(rough, CROP_PX[::-1], interpolation=cv2.INTER_CUBIC)
    data = cv2.imencode(".jpg", picture)[1].tobytes()
    return {m: (f"{m}.jpg", data) for m in MODALITIES}


def triplets_per_s(url: str, for_s: float) -> float:
    """Return how many triplets a second the run works on."""
    before, began_s = triplets(url), time.monotonic()
    time.sleep(for_s)
    return (triplets(url) - before) / (time.monotonic() - began_s)


def triplets(url: str) -> float:
    """Return how many triplets the run worked on so far."""
    families = text_string_to_metric_families(requests.get(f"{url}/metrics", timeout=30).text)
    return sum(s.value for f in families for s in f.samples if s.name == "mambapro_triplets_total")


def rig(number: int) -> dict[str, Any]:
    """Return a rig of three patterns."""
    uri = "pattern://?size=640x360&fps=12.5"
    camera = {"uri": uri, "homography": IDENTITY}
    cameras = {"rgb": {"uri": uri}, "nir": camera, "tir": camera}
    return {"name": f"rig {number}", "cameras": cameras}


def one_camera() -> dict[str, Any]:
    """Return a rig of one pattern."""
    return {"name": "rig", "cameras": {"rgb": {"uri": "pattern://?size=640x360&fps=12.5"}}}


def quantiles(times_ms: Sequence[float]) -> dict[str, float]:
    """Return median and 95th percentile."""
    p50, p95 = np.quantile(times_ms, (0.5, 0.95))
    return {"p50": round(float(p50), 2), "p95": round(float(p95), 2)}


def table(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the rows of the table."""
    rows = [
        ("templates", f"{result['templates']:,}", ""),
        ("channels of an embedding", str(result["embedding_dim"]), ""),
    ]
    for name in ("1 camera", "6 cameras"):
        for key, clients in (("one_ms", "one client"), ("four_ms", "four clients")):
            for quantile, value in result[name][key].items():
                needed = f"under {MOST_MS:.0f} ms" if (key, quantile) == ("one_ms", "p95") else ""
                words = f"search, {clients}, run on {name}, {quantile}"
                rows.append((words, f"{value:.1f} ms", needed))
        alone, searched = (
            result[name][k] for k in ("triplets_per_s", "triplets_per_s_while_searched")
        )
        rows.append((f"triplets a second, run on {name}", f"{alone:.1f}", ""))
        rows.append((f"the same while it is searched, run on {name}", f"{searched:.1f}", ""))
    for name, times in result["parts"].items():
        rows.append((f"{name} alone, p95", f"{times['p95']:.1f} ms", ""))
    return rows


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description="Measure searches over HTTP.")
    parser.add_argument(
        "--templates", type=int, default=20_000, help="templates in all (default: 20000)"
    )
    parser.add_argument(
        "--searches", type=int, default=200, help="searches of each kind (default: 200)"
    )
    parser.add_argument(
        "--record", action="store_true",
        help="write benchmarks/results/server.json and the table of docs/server.md (default: off)",
    )  # fmt: skip
    add_common_arguments(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(run(main))
