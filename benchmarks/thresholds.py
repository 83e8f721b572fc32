"""Do thresholds hold for others? ``python benchmarks/thresholds.py``.

Chooses thresholds on the test split of the demo's models, as ``calibration/threshold.py`` does, and
measures them on identities of another seed, whom neither training nor calibration saw. ``--record``
writes benchmarks/results/thresholds.json and the table of docs/thresholds.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.readme import replace_table
from calibration.embedding import ModelFile, read_identities
from calibration.open_set import OpenSet, choose_threshold, rates_at
from calibration.threshold import DEFAULT_CROPS, DEFAULT_TOP, Cases, compare, embed_visits
from mambapro.cli import add_common_arguments, print_json_line, run, start_logging
from mambapro.config import ExperimentConfig, from_record
from mambapro.contract import EXIT_CHECK_FAILED, EXIT_DONE
from mambapro.environment import environment
from mambapro.files import in_checkout, write_json
from mambapro.metrics import PROTOCOLS
from mambapro.synthetic.datasets import write_dataset
from mambapro.thresholds import COMPLETE

RESULT: Final = in_checkout("benchmarks/results/thresholds.json")
MODELS: Final = tuple(
    in_checkout(f"runs/{subject}/model{precision}.onnx")
    for precision in ("", ".fp16", ".int8-cpu")
    for subject in ("person", "vehicle")
)
SEED: Final = 1701
IDENTITIES: Final = 100
FAR: Final = 0.01
GALLERIES: Final = (1, 20)
"""Rates of comparisons, and of strangers in a gallery of 20."""
LEAST_IDENTIFIED: Final = 0.8
HEADER: Final = (
    "model", "precision", "at most 1 % of", "track", "template", "threshold",
    "false matches, others", "stated, 95 %", "holds", "identified, others", "stated, 95 %",
    "strangers known, others",
)  # fmt: skip

Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every case; exit 1 when float32 misses a rate with all modalities."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    rows = [row for path in arguments.models for row in measure(path, arguments.folder)]
    cells = [cells_of(row) for row in rows if full(row) or complete(row)]
    for line in (HEADER, *cells):
        print(
            "  ".join(
                cell.ljust(max(11, len(name))) for cell, name in zip(line, HEADER, strict=True)
            )
        )
    missed = [row for row in rows if full(row) and complete(row) and not sound(row)]
    result = {"held": sum(row["holds"] for row in rows), "cases": len(rows), "rows": rows}
    if arguments.record:
        write_json(RESULT, {"environment": environment(), **result})
        replace_table(in_checkout("docs/thresholds.md"), "thresholds", HEADER, cells)
    if arguments.json:
        print_json_line(result)
    return EXIT_CHECK_FAILED if missed else EXIT_DONE


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description="Measure thresholds on identities of other seeds.")
    parser.add_argument(
        "models", nargs="*", type=Path, default=MODELS, metavar="MODEL",
        help="model files trained on synthetic data (default: the demo's two, float32 and as "
        "export/to_fp16.py and export/to_int8.py --target cpu write them)",
    )  # fmt: skip
    parser.add_argument(
        "--folder", type=Path, default=in_checkout("runs/thresholds"),
        help="folder for pictures; what is there is used again (default: runs/thresholds)",
    )  # fmt: skip
    parser.add_argument(
        "--record", action="store_true",
        help="write benchmarks/results/thresholds.json and the table of docs/thresholds.md "
        "(default: off)",
    )  # fmt: skip
    add_common_arguments(parser)
    return parser.parse_args(argv)


def measure(path: Path, folder: Path) -> list[Row]:
    """Return the thresholds of a model file, and what they do to identities of another seed."""
    model = ModelFile(path)
    config = from_record(ExperimentConfig, model.spec.training)
    data = config.data.synthetic
    assert data is not None
    others = folder / model.spec.subject
    write_dataset(
        config.data.layout, others, identities=(1, IDENTITIES), cameras=data.cameras,
        images_per_camera=data.images_per_camera, size=data.size, seed=SEED,
    )  # fmt: skip
    calibrated, unseen = cases_of(model, None), cases_of(model, others)
    return [
        {
            "model": model.spec.subject,
            "precision": model.spec.precision,
            **judge(gallery, name, kind, comparisons, unseen[kind][name]),
        }
        for gallery in GALLERIES
        for kind, by_subset in calibrated.items()
        for name, comparisons in by_subset.items()
    ]


def cases_of(model: ModelFile, root: Path | None) -> Cases:
    """Return all comparisons of the test split in ``root``, by default that of the training."""
    dataset = read_identities(model.spec, root)
    protocol = PROTOCOLS[dataset.layout]
    return compare(embed_visits(model, dataset, protocol, DEFAULT_CROPS), protocol, DEFAULT_TOP)


def judge(gallery: int, track: str, kind: str, calibrated: OpenSet, unseen: OpenSet) -> Row:
    """Choose a threshold on one set of identities and measure it on another."""
    chosen = choose_threshold(calibrated, FAR, gallery)
    false_match, false_non_match, identified, strangers = rates_at(unseen, chosen.cosine)
    return {
        "gallery": gallery,
        "track": track,
        "template": track if kind == "same" else COMPLETE,
        "threshold": chosen.cosine,
        "threshold_interval": [chosen.cosine_low, chosen.cosine_high],
        "false_match": false_match,
        "false_match_interval": [chosen.false_match.low, chosen.false_match.high],
        "holds": chosen.false_match.low <= false_match <= chosen.false_match.high,
        "false_non_match": false_non_match,
        "identified": identified,
        "identified_interval": [chosen.identified.low, chosen.identified.high],
        "strangers_known": strangers,
        "strangers_gallery": unseen.identities - 1,
    }


def full(row: Row) -> bool:
    """Whether the file is of full precision; the others follow it, and have rows of their own."""
    return bool(row["precision"] == "fp32")


def complete(row: Row) -> bool:
    """Whether nothing is missing of track and templates."""
    return bool(row["track"] == row["template"] == COMPLETE)


def sound(row: Row) -> bool:
    """Whether a case keeps its interval, and identifies as many as are needed."""
    return bool(row["holds"] and row["identified"] >= LEAST_IDENTIFIED)


def cells_of(row: Row) -> tuple[str, ...]:
    """Return one line of the table."""
    of = "comparisons" if row["gallery"] == 1 else f"strangers, {row['gallery']} known"
    return (
        row["model"], row["precision"], of, row["track"], row["template"],
        f"{row['threshold']:.3f}", f"{row['false_match']:.2%}",
        "{:.2%} to {:.2%}".format(*row["false_match_interval"]),
        "yes" if row["holds"] else "no", f"{row['identified']:.1%}",
        "{:.0%} to {:.0%}".format(*row["identified_interval"]), f"{row['strangers_known']:.1%}",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run(main))
