"""Which triplets calibrate INT8: seeded, balanced, never from a test split, and written down.

They come from a dataset's training split or from a folder that ``runtime/stream.py
--record-crops`` wrote: ``crops.jsonl`` with a line a triplet,
``{"rig", "track", "camera", "subject", "time_s", "crops": {"rgb": "A/3_12.400_rgb.png", ...}}``;
paths are relative to the folder, a missing modality is left out.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mambapro.cli import InputError
from mambapro.contract import MODALITIES, SUBSETS, Subject
from mambapro.datasets import Record, load_triplet
from mambapro.files import sha256
from mambapro.preprocess import Picture, read_picture, stack

RECORDED_INDEX: Final = "crops.jsonl"
NIGHT_LUMA: Final = 40.0
"""A visible picture whose mean value (0 to 255) is lower was taken by night."""
MIN_TRIPLETS: Final = 16
"""Fewer say nothing about ranges."""

Batch = tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.int64]]
"""images (1, 3, H, W, 3), mask (1, 3) and camera (1,), as a model file takes them."""


@dataclass(frozen=True)
class Triplet:
    """One subject seen once, as it may be shown to the model."""

    paths: tuple[str, ...]
    """A file for each of ``modalities``, or one picture with three panels."""
    modalities: tuple[str, ...]
    """What there is."""
    identity: str
    """Who it is; a recorded track is an identity of its own."""
    camera: int
    """Row of the camera embedding."""

    def pictures(self) -> dict[str, Picture]:
        """Read the pictures, (H, W, 3) uint8 R, G, B by modality; InputError if one is damaged."""
        if len(self.paths) == len(self.modalities):
            pairs = zip(self.modalities, self.paths, strict=True)
            return {modality: read_picture(path) for modality, path in pairs}
        return dict(load_triplet(Record(self.paths, identity=0, camera=self.camera)))

    def by_night(self) -> bool:
        """Whether the visible picture is dark, or there is none."""
        visible = self.pictures().get(MODALITIES[0])
        return visible is None or float(visible.mean()) < NIGHT_LUMA


@dataclass(frozen=True)
class Chosen:
    """A triplet of the calibration set."""

    triplet: Triplet
    night: bool
    """Whether it is dark."""
    shown: tuple[str, ...]
    """The modalities that the model gets to see; the others are masked."""
    hashes: tuple[str, ...]
    """SHA-256 of each file."""

    def batch(self, size: tuple[int, int]) -> Batch:
        """Return a model's inputs for pictures of ``size`` = (H, W)."""
        pictures = self.triplet.pictures()
        images, mask = stack({m: pictures[m] for m in self.shown}, size)
        return images[None], mask[None], np.array([self.triplet.camera], np.int64)


@dataclass(frozen=True)
class CalibrationSet:
    """What ranges are taken from."""

    source: str
    """Where the triplets come from, in words."""
    seed: int
    """Seed of the choice."""
    chosen: tuple[Chosen, ...]
    """The triplets in the order they are shown."""

    def batches(self, size: tuple[int, int]) -> Iterator[Batch]:
        """Yield the model's inputs one triplet at a time."""
        return (chosen.batch(size) for chosen in self.chosen)

    @property
    def list_hash(self) -> str:
        """SHA-256 over the hashes of all files and how they are shown."""
        rows = [[c.hashes, c.shown, c.triplet.camera] for c in self.chosen]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def balance(self) -> dict[str, dict[str, int]]:
        """Return how many triplets there are of each camera, light, modality subset, identity."""
        chosen = self.chosen
        return {
            "camera": _counts(str(c.triplet.camera) for c in chosen),
            "light": _counts("night" if c.night else "day" for c in chosen),
            "modalities": _counts("+".join(c.shown) for c in chosen),
            "identity": _counts(c.triplet.identity for c in chosen),
        }

    def manifest(self) -> dict[str, Any]:
        """Return the list with a hash for every file, for the cache and for whoever asks."""
        return {
            "source": self.source,
            "seed": self.seed,
            "list_hash": self.list_hash,
            "balance": self.balance(),
            "images": [
                {
                    "files": [Path(path).name for path in c.triplet.paths],
                    "sha256": list(c.hashes),
                    "identity": c.triplet.identity,
                    "camera": c.triplet.camera,
                    "night": c.night,
                    "shown": list(c.shown),
                }
                for c in self.chosen
            ],
        }


def from_records(records: Sequence[Record]) -> list[Triplet]:
    """Return the triplets of a dataset's records; take them from a training split only."""
    return [Triplet(r.paths, MODALITIES, str(r.identity), r.camera) for r in records]


def from_recorded(folder: Path, subject: Subject, cameras: int) -> list[Triplet]:
    """Return the triplets of ``subject`` that the stream recorded in ``folder``.

    A camera that a model of ``cameras`` rows does not know becomes unknown (-1). InputError when
    the folder has no index, or a line of it cannot be understood.
    """
    index = folder / RECORDED_INDEX
    if not index.is_file():
        raise InputError(
            f"{folder} holds no {RECORDED_INDEX}; record crops with "
            "runtime/stream.py --record-crops FOLDER"
        )
    lines = index.read_text(encoding="utf-8").splitlines()
    read = [_recorded(folder, line, number) for number, line in enumerate(lines, start=1)]
    triplets = [triplet for kind, triplet in read if kind == subject]
    if not triplets:
        raise InputError(f"{folder} shows no {subject}, in {len(lines)} triplets")
    known = range(cameras)
    return [
        t if t.camera in known else Triplet(t.paths, t.modalities, t.identity, -1) for t in triplets
    ]


def choose(
    triplets: Sequence[Triplet], count: int, seed: int, source: str, least: int = MIN_TRIPLETS
) -> CalibrationSet:
    """Choose ``count`` triplets, or all when there are fewer, balanced as far as they allow.

    Cells of camera and light take turns; each gives a triplet of the identity that was chosen
    least, and shows the modality subset that the cell showed least. InputError when fewer than
    ``least`` are wanted or there.
    """
    if min(count, len(triplets)) < least:
        raise InputError(
            f"calibration needs at least {least} triplets, {count} are wanted and "
            f"{len(triplets)} there ({source}); record or read more"
        )
    with ThreadPoolExecutor() as pool:
        nights = list(pool.map(Triplet.by_night, triplets))
    cells: dict[tuple[int, bool], list[Triplet]] = defaultdict(list)
    for triplet, night in zip(triplets, nights, strict=True):
        cells[triplet.camera, night].append(triplet)
    drawn = random.Random(seed)
    for cell in cells.values():
        drawn.shuffle(cell)
    return CalibrationSet(source, seed, tuple(itertools.islice(_turns(cells), count)))


def _turns(cells: dict[tuple[int, bool], list[Triplet]]) -> Iterator[Chosen]:
    seen: Counter[str] = Counter()
    shown: Counter[tuple[object, ...]] = Counter()
    while any(cells.values()):
        for cell, waiting in sorted(cells.items()):
            if not waiting:
                continue
            triplet = min(waiting, key=lambda t: seen[t.identity])
            waiting.remove(triplet)
            seen[triplet.identity] += 1
            legal = [s for s in SUBSETS if set(s) <= set(triplet.modalities)]
            subset = min(legal, key=lambda s: (shown[cell, s], shown[s]))
            shown[cell, subset] += 1
            shown[subset] += 1
            hashes = tuple(sha256(path) for path in triplet.paths)
            yield Chosen(triplet, cell[1], tuple(subset), hashes)


def _recorded(folder: Path, line: str, number: int) -> tuple[str, Triplet]:
    try:
        values = json.loads(line)
        crops = {m: str(folder / values["crops"][m]) for m in MODALITIES if m in values["crops"]}
        identity = f"{values['rig']}/{values['track']}"
        triplet = Triplet(tuple(crops.values()), tuple(crops), identity, int(values["camera"]))
        return str(values["subject"]), triplet
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder / RECORDED_INDEX}, line {number} is damaged ({error!r}); record it again"
        ) from error


def _counts(values: Iterator[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
