"""What a gallery costs: ``python benchmarks/gallery.py``.

Fills one with 20,000 templates of 1,000 identities, 1536 channels each, and measures search, put,
opening and size; beside it, in the same run, the search of NumPy and of Qdrant Edge with an HNSW
graph, and Edge's own put, which waits for no disk. ``--record`` writes
benchmarks/results/gallery.json and the table of docs/gallery.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from qdrant_edge import (
    Distance,
    EdgeConfig,
    EdgeShard,
    EdgeVectorParams,
    Point,
    Query,
    QueryRequest,
    UpdateOperation,
)

from benchmarks.readme import replace_table
from mambapro.cli import add_common_arguments, print_json_line, run, start_logging
from mambapro.contract import EXIT_DONE
from mambapro.environment import environment
from mambapro.files import in_checkout, write_json
from mambapro.spec import ModelSpec
from runtime.config import GalleryConfig
from runtime.gallery import Gallery, Record, open_gallery

RESULT: Final = in_checkout("benchmarks/results/gallery.json")
DOCUMENT: Final = in_checkout("docs/gallery.md")
DIM: Final = 1536
TEMPLATES: Final = 20
"""Templates of an identity."""
SPREAD: Final = 0.6
"""Length of what sets a template apart from its identity's own direction."""
LIMIT: Final = 64
SEARCHES, PUTS = 300, 200
EXCLUDED: Final = 5
SPEC: Final = ModelSpec("person", (256, 128), DIM, 4, "benchmark", "0" * 64)

Floats = np.ndarray[Any, np.dtype[np.float32]]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; print the table."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    draw = np.random.default_rng(0)
    templates = sample(draw, arguments.templates)
    picked = templates[draw.integers(len(templates), size=SEARCHES)]
    queries = unit(picked + SPREAD / np.sqrt(DIM) * draw.normal(size=picked.shape))
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="gallery.") as folder:
        result = measure(templates, queries, Path(folder))
        result["searches"] |= alternatives(templates, queries, Path(folder), arguments.hnsw)
    result["templates"] = len(templates)
    rows = table(result)
    for name, figure in rows:
        print(f"{name:60} {figure:>12}")
    if arguments.record:
        write_json(RESULT, {"environment": environment(), **result})
        replace_table(DOCUMENT, "gallery", ("figure", "measured"), rows)
    if arguments.json:
        print_json_line(result)
    return EXIT_DONE


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description="Measure search, put and opening of a gallery.")
    parser.add_argument(
        "--templates", type=int, default=20_000, help="templates in all (default: 20000)"
    )
    parser.add_argument(
        "--folder", type=Path, default=in_checkout("runs"),
        help="folder on the disk to measure; what is written there is removed (default: runs)",
    )  # fmt: skip
    parser.add_argument(
        "--hnsw", action="store_true",
        help="build an HNSW graph as well, which takes a minute or two (default: off)",
    )  # fmt: skip
    parser.add_argument(
        "--record", action="store_true",
        help="write benchmarks/results/gallery.json and the table of docs/gallery.md "
        "(default: off)",
    )  # fmt: skip
    add_common_arguments(parser)
    return parser.parse_args(argv)


def sample(draw: np.random.Generator, count: int, dim: int = DIM) -> Floats:
    """Return ``count`` unit embeddings around one direction an identity, in random order."""
    identities = unit(draw.normal(size=(-(-count // TEMPLATES), dim)))
    around = np.repeat(identities, TEMPLATES, axis=0)[:count]
    return unit(draw.permutation(around + SPREAD / np.sqrt(dim) * draw.normal(size=around.shape)))


def unit(vectors: np.ndarray[Any, Any]) -> Floats:
    """Return rows of length 1 as float32."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def measure(templates: Floats, queries: Floats, folder: Path) -> dict[str, Any]:
    """Return the figures of our own gallery."""
    config = GalleryConfig(keep=True, capacity=len(templates) + PUTS)
    gallery = open_gallery(folder / "g", SPEC, config)
    fill_s = seconds(lambda: gallery.admit({}, records(templates)))
    close_s = seconds(gallery.close)
    began = time.perf_counter()
    gallery = open_gallery(folder / "g", SPEC, config)
    open_s = time.perf_counter() - began
    searches = {
        "search": timed(lambda query: gallery.candidates(query, 1), queries),
        "search, 5 identities left out": timed(
            lambda query: gallery.candidates(query, 1, {f"P{n}" for n in range(1, EXCLUDED + 1)}),
            queries,
        ),
    }
    puts = timed(lambda query: put(gallery, query), queries[:PUTS])
    size_bytes = sum(file.stat().st_size for file in (folder / "g").glob("*.sqlite"))
    gallery.close()
    return {
        "searches": searches,
        "put": puts,
        "edge_put": edge_put(queries[:PUTS], folder / "e"),
        "fill_s": fill_s,
        "close_s": close_s,
        "open_s": open_s,
        "ledger_and_spare_bytes": size_bytes,
    }


def alternatives(
    templates: Floats, queries: Floats, folder: Path, hnsw: bool
) -> dict[str, dict[str, float]]:
    """Return how long others search the same templates."""
    found = {"NumPy": timed(lambda query: np.argsort(-(templates @ query))[:LIMIT], queries)}
    if hnsw:
        shard = edge_shard(folder / "h")
        for start in range(0, len(templates), 256):
            upsert(shard, templates[start : start + 256], start)
        build_s = seconds(shard.optimize)
        timing = timed(lambda query: nearest(shard, query), queries)
        truth = np.argsort(-(queries @ templates.T), axis=1)[:, :10]
        hits = [
            len(set(nearest(shard, query)[:10]) & set(row.tolist()))
            for query, row in zip(queries, truth, strict=True)
        ]
        found["HNSW"] = {**timing, "build_s": build_s, "recall_at_10": float(np.mean(hits)) / 10}
        shard.close()
    return found


def records(templates: Floats) -> list[Record]:
    """Return the templates as the contents of a gallery."""
    return [
        Record(
            f"00000000-0000-4000-8000-{number:012d}",
            template,
            {
                "identity": f"P{number // TEMPLATES + 1}", "rig": "gate", "track": number,
                "time_s": float(number), "precision": "fp32", "embedding_space": "benchmark",
            },
        )
        for number, template in enumerate(templates, 1)
    ]  # fmt: skip


def put(gallery: Gallery, embedding: Floats) -> None:
    """Keep a template of a new identity."""
    gallery.put(gallery.new_identity(), embedding, {"rig": "gate", "track": 0, "time_s": 1e6})


def edge_put(embeddings: Floats, folder: Path) -> dict[str, float]:
    """Return how long Edge takes to put points by itself."""
    shard = edge_shard(folder)
    numbers = iter(range(len(embeddings)))
    timing = timed(lambda row: upsert(shard, row[None], next(numbers)), embeddings)
    shard.close()
    return timing


def edge_shard(folder: Path) -> EdgeShard:
    """Return a new shard as the library makes it unasked."""
    folder.mkdir()
    return EdgeShard.create(str(folder), EdgeConfig({"e": EdgeVectorParams(DIM, Distance.Cosine)}))


def upsert(shard: EdgeShard, embeddings: Floats, first: int) -> None:
    """Put points with the numbers from ``first``."""
    points = [Point(first + n, {"e": row.tolist()}, {}) for n, row in enumerate(embeddings)]
    shard.update(UpdateOperation.upsert_points(points))


def nearest(shard: EdgeShard, query: Floats) -> list[int]:
    """Return the numbers of the nearest points."""
    request = QueryRequest(LIMIT, query=Query.Nearest(query.tolist(), using="e"), with_payload=True)
    return [int(str(point.id)) for point in shard.query(request)]


def timed(call: Callable[[Floats], Any], inputs: Floats) -> dict[str, float]:
    """Return p50 and p95 of the calls, ms."""
    times_s = [seconds(lambda row=row: call(row)) for row in inputs]  # type: ignore[misc]
    return {f"p{p}_ms": float(np.percentile(times_s, p)) * 1e3 for p in (50, 95)}


def seconds(call: Callable[[], Any]) -> float:
    """Return how long one call takes, s."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def table(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the rows for people."""
    rows = [("templates", f"{result['templates']:,}")]
    timings = {**result["searches"], "put": result["put"], "put by Edge alone": result["edge_put"]}
    for name, timing in timings.items():
        rows.append((f"{name}, p50", f"{timing['p50_ms']:.2f} ms"))
        rows.append((f"{name}, p95", f"{timing['p95_ms']:.2f} ms"))
        if "build_s" in timing:
            rows.append(("HNSW, to build", f"{timing['build_s']:.0f} s"))
            rows.append(("HNSW, recall of the 10 nearest", f"{100 * timing['recall_at_10']:.1f} %"))
    rows += [
        ("opening", f"{result['open_s']:.2f} s"),
        ("closing, spare copy included", f"{result['close_s']:.2f} s"),
        ("ledger and spare copy on disk", f"{result['ledger_and_spare_bytes'] / 1e6:.0f} MB"),
    ]
    return rows


if __name__ == "__main__":
    sys.exit(run(main))
