"""Choose match thresholds for a rate of false matches: ``python calibration/threshold.py MODEL``.

Writes ``model.thresholds.json`` beside each model file, which ``runtime/stream.py`` takes from
there, and ``model.det.png``, the trade-off. docs/thresholds.md says which rate to ask for.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from calibration.embedding import ModelFile, Subset, read_identities
from calibration.match_rates import fuse_visits
from calibration.open_set import OpenSet, allowed_rate, choose_threshold, fuse_first, open_set
from calibration.threshold_figure import draw_det
from mambapro.cli import InputError, add_common_arguments, print_json_line, run, start_logging
from mambapro.config import to_dict
from mambapro.contract import EXIT_DONE, MODALITIES, SUBSETS
from mambapro.datasets import Dataset
from mambapro.drift import drift_reference
from mambapro.files import in_checkout
from mambapro.metrics import PROTOCOLS, Floats, Labels, Protocol
from mambapro.spec import ModelSpec
from mambapro.thresholds import (
    COMPLETE,
    Threshold,
    Thresholds,
    subset_name,
    thresholds_path,
    write_thresholds,
)

DEFAULT_MODEL: Final = in_checkout("runs/person/model.onnx")
DEFAULT_FAR: Final = 0.01
DEFAULT_CROPS: Final = 4
"""Crops that the stream decides on, its match.decide_after."""
DEFAULT_TOP: Final = 3
"""Templates that a score is the mean of, the stream's match.top."""

_log = logging.getLogger("threshold")


@dataclasses.dataclass(frozen=True)
class Visits:
    """What a model makes of every visit: all crops of an identity at a place."""

    labels: Labels
    """Whose visits they are."""
    probes: dict[Subset, Floats]
    """By modalities, (n, E) means of a visit's first crops."""
    templates: dict[Subset, Floats]
    """By modalities, (n, E) means of all its crops."""

    def open_set(self, probe: Subset, template: Subset, protocol: Protocol, top: int) -> OpenSet:
        """Compare all visits that show ``probe`` with all that show ``template``."""
        return open_set(
            (self.probes[probe], self.labels),
            (self.templates[template], self.labels),
            protocol,
            top,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Calibrate each model file, print its thresholds, return the exit code."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    check(arguments)
    written = [calibrate(path, arguments) for path in arguments.models]
    if arguments.json:
        print_json_line({"models": written})
    return EXIT_DONE


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        description="Choose match thresholds for a rate of false matches, for each subset of the "
        "modalities, and write them beside the model file, where the stream finds them."
    )
    parser.add_argument(
        "models", nargs="*", type=Path, default=[DEFAULT_MODEL], metavar="MODEL",
        help=f"model files, each precision by itself (default: {DEFAULT_MODEL})",
    )  # fmt: skip
    parser.add_argument(
        "--far", type=float, default=DEFAULT_FAR, metavar="SHARE",
        help="share of false matches, 0 to 1: of comparisons with somebody else, or with "
        f"--gallery of strangers (default: {DEFAULT_FAR})",
    )  # fmt: skip
    parser.add_argument(
        "--gallery", type=int, default=1, metavar="N",
        help="identities in the gallery that a stranger is compared with; --far is then the share "
        "of strangers who are taken for any of them (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER",
        help="folder that contains the dataset whose test split is compared (default: data.root "
        "of the model's training)",
    )  # fmt: skip
    parser.add_argument(
        "--crops", type=int, default=DEFAULT_CROPS, metavar="N",
        help=f"crops that a decision rests on, match.decide_after (default: {DEFAULT_CROPS})",
    )  # fmt: skip
    parser.add_argument(
        "--top", type=int, default=DEFAULT_TOP, metavar="N",
        help=f"templates that a score is the mean of, match.top (default: {DEFAULT_TOP})",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads of the model (default: every core)"
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def check(arguments: argparse.Namespace) -> None:
    """Refuse what makes no sense before anything is embedded, which takes minutes."""
    allowed_rate(arguments.far, arguments.gallery)
    for name in ("crops", "top"):
        if getattr(arguments, name) < 1:
            raise InputError(f"--{name} must be at least 1, got {getattr(arguments, name)}")


def calibrate(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Choose the thresholds of one model file, write them and the picture, print the table."""
    model = ModelFile(path, arguments.threads)
    dataset = read_identities(model.spec, arguments.data)
    _log.info("%s: embedding the test split in %d subsets", path, len(SUBSETS))
    protocol = PROTOCOLS[dataset.layout]
    visits = embed_visits(model, dataset, protocol, arguments.crops)
    cases = compare(visits, protocol, arguments.top)
    thresholds = choose(model.spec, dataset, visits, cases, arguments.far, arguments.gallery)
    output = thresholds_path(path)
    write_thresholds(output, thresholds)
    picture = path.with_name(f"{path.stem}.det.png")
    draw_det(cases, thresholds, str(path), picture)
    print(table(thresholds, output, picture))
    return {"model": str(path), "output": str(output), **to_dict(thresholds)}


def embed_visits(model: ModelFile, dataset: Dataset, protocol: Protocol, crops: int) -> Visits:
    """Embed the gallery of the test split, and fuse it to visits."""
    split = dataset.gallery  # it holds the queries' identities too
    labels = split.labels()
    embedded = model.embed(split.records, SUBSETS)
    probes = {s: fuse_first(rows, labels, protocol, crops) for s, rows in embedded.items()}
    fused = {s: fuse_visits(rows, labels, protocol) for s, rows in embedded.items()}
    return Visits(fused[MODALITIES][1], probes, {s: rows for s, (rows, _) in fused.items()})


Cases = dict[str, dict[str, OpenSet]]
"""``same`` and ``mixed``, each by the name of the subset."""


def compare(visits: Visits, protocol: Protocol, top: int) -> Cases:
    """Return the comparisons of every case that has a threshold."""
    return {
        "same": {subset_name(s): visits.open_set(s, s, protocol, top) for s in SUBSETS},
        "mixed": {
            subset_name(s): visits.open_set(s, MODALITIES, protocol, top)
            for s in SUBSETS
            if s != MODALITIES
        },
    }


def choose(
    spec: ModelSpec, dataset: Dataset, visits: Visits, cases: Cases, far: float, gallery: int
) -> Thresholds:
    """Choose the threshold of every case, and note what visits look like."""
    complete = cases["same"][COMPLETE]
    chosen = {
        kind: {name: choose_threshold(c, far, gallery) for name, c in by_subset.items()}
        for kind, by_subset in cases.items()
    }
    return Thresholds(
        subject=spec.subject,
        precision=spec.precision,
        embedding_space=spec.embedding_space,
        far=far,
        gallery=gallery,
        identities=complete.identities - 1,
        source=f"test split of {dataset.layout}: {complete.identities} identities, "
        f"{len(complete.own)} visits",
        same=chosen["same"],
        mixed=chosen["mixed"],
        drift={subset_name(s): drift_reference(rows, s) for s, rows in visits.probes.items()},
    )


def table(thresholds: Thresholds, *written: Path) -> str:
    """Return the thresholds as lines of text."""
    of = "comparisons" if thresholds.gallery == 1 else (
        f"strangers in a gallery of {thresholds.gallery}"
    )  # fmt: skip
    title = (
        f"{thresholds.subject}, {thresholds.precision}: at most {thresholds.far:.2%} of {of}; "
        f"{thresholds.source}"
    )
    header = (
        f"{'track':12} {'template':12} {'threshold':>9} {'false match':>11}  {'95 %':^15} "
        f"{'non-match':>9} {'identified':>10}  {'95 %':^15} {'strangers known':>15}"
    )
    rows = [
        _row(name, name if kind == "same" else COMPLETE, threshold)
        for kind in ("same", "mixed")
        for name, threshold in getattr(thresholds, kind).items()
    ]
    note = (
        f"strangers known: taken for any of the {thresholds.identities} others of the split, "
        "however many --gallery says"
    )
    return "\n".join([title, header, *rows, note, *(f"written: {path}" for path in written)])


def _row(track: str, template: str, threshold: Threshold) -> str:
    match, identified = threshold.false_match, threshold.identified
    return (
        f"{track:12} {template:12} {threshold.cosine:9.4f} {match.value:11.4%}  "
        f"{match.low:6.3%} {match.high:6.3%}   {threshold.false_non_match.value:9.1%} "
        f"{identified.value:10.1%}  {identified.low:6.1%} {identified.high:6.1%}   "
        f"{threshold.strangers_known.value:15.1%}"
    )


if __name__ == "__main__":
    sys.exit(run(main))
