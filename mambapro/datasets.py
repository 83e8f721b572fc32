"""The three on-disk layouts of multi-modal re-identification, read into records.

- rgbnt201: ``RGBNT201/{train_171,test}/{RGB,NI,TI}/<name>``; query and gallery are both ``test``.
- rgbnt100: ``RGBNT100/rgbir/{bounding_box_train,query,bounding_box_test}/<name>``; one picture
  holds RGB, NIR and TIR side by side.
- msvr310: ``msvr310/{bounding_box_train,query3,bounding_box_test}/<id>/{vis,ni,th}/<name>``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from mambapro.cli import InputError
from mambapro.contract import MODALITIES
from mambapro.metrics import Labels
from mambapro.preprocess import Picture, read_picture

Layout = Literal["rgbnt201", "rgbnt100", "msvr310"]

LAYOUT_FOLDERS: Final[dict[Layout, str]] = {
    "rgbnt201": "RGBNT201",
    "rgbnt100": "RGBNT100/rgbir",
    "msvr310": "msvr310",
}
"""A layout's own folder inside the data root."""

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp"})
JUNK: Final = -1
"""Identity of pictures that show nobody in particular; they are left out of every split."""

_NAMED_AT_MOST: Final = 5
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """One subject seen once by the three cameras of a rig."""

    paths: tuple[str, ...]
    """One file a modality in the order of MODALITIES, or one picture with three panels."""
    identity: int
    """Who it is, as the dataset numbers it."""
    camera: int
    """Viewing position, from 0."""
    scene: int = 0
    """Scene; 0 where the layout has none."""


@dataclass(frozen=True)
class Split:
    """Records of one purpose, in the order of their file names."""

    records: tuple[Record, ...]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def identities(self) -> tuple[int, ...]:
        """Identities in ascending order; a position in here is a class label."""
        return tuple(sorted({record.identity for record in self.records}))

    def labels(self) -> Labels:
        """Return identity, camera and scene of each record as arrays."""
        return Labels(
            identity=np.array([record.identity for record in self.records], np.int64),
            camera=np.array([record.camera for record in self.records], np.int64),
            scene=np.array([record.scene for record in self.records], np.int64),
        )

    def class_labels(self) -> list[int]:
        """Return each record's position in :attr:`identities`."""
        position = {identity: label for label, identity in enumerate(self.identities)}
        return [position[record.identity] for record in self.records]


@dataclass(frozen=True)
class Dataset:
    """The splits of one dataset; ``query is gallery`` where one folder serves as both."""

    layout: Layout
    train: Split
    query: Split
    gallery: Split

    def check_cameras(self, cameras: int) -> None:
        """Raise InputError when a record's camera has no row in a model of ``cameras`` rows."""
        splits = (self.train, self.query, self.gallery)
        records = [record for split in splits for record in split.records]
        lowest, highest = (pick(records, key=lambda r: r.camera) for pick in (min, max))
        if lowest.camera < 0:
            raise InputError(
                f"{lowest.paths[0]} names a camera below the first one of the {self.layout} layout"
            )
        if highest.camera >= cameras:
            raise InputError(
                f"the {self.layout} data has {highest.camera + 1} cameras ({highest.paths[0]}), "
                f"model.cameras is {cameras}; set model.cameras to at least {highest.camera + 1}"
            )


def read_dataset(layout: Layout, root: str | Path) -> Dataset:
    """List the records of the dataset of ``layout`` under ``root``; pictures are not opened.

    Raises InputError for a folder that is missing or empty, for modality folders that do not hold
    the same files (with counts and the first names that lack a partner) and for unexpected names.
    """
    folder = Path(root) / LAYOUT_FOLDERS[layout]
    if not folder.is_dir():
        raise InputError(f"no {layout} dataset: folder {folder} is missing; set data.root")
    if layout == "rgbnt201":
        test = _read_rgbnt201(folder / "test")
        return Dataset(layout, _read_rgbnt201(folder / "train_171"), test, test)
    read = _read_rgbnt100 if layout == "rgbnt100" else _read_msvr310
    query = "query" if layout == "rgbnt100" else "query3"
    names = ("bounding_box_train", query, "bounding_box_test")
    return Dataset(layout, *(read(folder / name) for name in names))


def load_triplet(record: Record) -> dict[str, Picture]:
    """Read the record's pictures, (H, W, 3) uint8 R, G, B by modality.

    Raises InputError when a file cannot be read or is not as wide as three equal panels.
    """
    if len(record.paths) == len(MODALITIES):
        return {m: read_picture(path) for m, path in zip(MODALITIES, record.paths, strict=True)}
    (path,) = record.paths
    picture = read_picture(path)
    width, rest = divmod(picture.shape[1], len(MODALITIES))
    if rest or not width:
        raise InputError(
            f"{path} must hold {len(MODALITIES)} panels of equal width, it is "
            f"{picture.shape[1]} px wide"
        )
    return {m: picture[:, i * width : (i + 1) * width] for i, m in enumerate(MODALITIES)}


def drop_unreadable(dataset: Dataset, max_share: float) -> Dataset:
    """Open every picture once and return the dataset without the records that cannot be read.

    They are counted and the first are named in the log; raises InputError above ``max_share``.
    """
    splits = {id(s): s for s in (dataset.train, dataset.query, dataset.gallery)}
    records = list(dict.fromkeys(record for s in splits.values() for record in s.records))
    reasons = _unreadable(records)
    if not reasons:
        return dataset
    share = len(reasons) / len(records)
    summary = (
        f"{len(reasons)} of {len(records)} triplets ({share:.1%}) cannot be read: "
        f"{_first(list(reasons.values()))}"
    )
    if share > max_share:
        raise InputError(f"{summary}; data.max_unreadable_share allows {max_share:.1%}")
    _log.warning("%s; they are left out", summary)
    kept = {
        key: Split(tuple(r for r in s.records if r not in reasons)) for key, s in splits.items()
    }
    train, query, gallery = (kept[id(s)] for s in (dataset.train, dataset.query, dataset.gallery))
    return Dataset(dataset.layout, train, query, gallery)


def _unreadable(records: Sequence[Record]) -> dict[Record, str]:
    with ThreadPoolExecutor() as pool:
        reasons = pool.map(_reason_unreadable, records)
        return {record: text for record, text in zip(records, reasons, strict=True) if text}


def _reason_unreadable(record: Record) -> str:
    try:
        load_triplet(record)
    except InputError as error:
        return str(error)
    return ""


def _read_rgbnt201(folder: Path) -> Split:
    parts = [folder / name for name in ("RGB", "NI", "TI")]
    records = []
    for name in _common_names(folder, parts):
        match = _match(r"(?P<identity>\d{6})_.{3}(?P<camera>\d)", folder / name)
        records.append(_record([part / name for part in parts], match, first_camera=1))
    return _split(folder, records)


def _read_rgbnt100(folder: Path) -> Split:
    records = []
    for name in sorted(_names(folder)):
        match = _match(r"(?P<identity>-?\d+)_c(?P<camera>\d+)", folder / name)
        records.append(_record([folder / name], match, first_camera=1))
    return _split(folder, records)


def _read_msvr310(folder: Path) -> Split:
    records = []
    for identity in sorted(path for path in _listed(folder) if path.is_dir()):
        parts = [identity / name for name in ("vis", "ni", "th")]
        for name in _common_names(identity, parts):
            match = _match(
                r"(?P<identity>\d{4})..(?P<scene>\d{3})..(?P<camera>\d)", identity / name
            )
            records.append(_record([part / name for part in parts], match, first_camera=0))
    return _split(folder, records)


def _record(paths: Iterable[Path], match: re.Match[str], first_camera: int) -> Record:
    fields = match.groupdict()
    return Record(
        paths=tuple(str(path) for path in paths),
        identity=int(fields["identity"]),
        camera=int(fields["camera"]) - first_camera,
        scene=int(fields.get("scene", 0)),
    )


def _split(folder: Path, records: Iterable[Record]) -> Split:
    kept = tuple(record for record in records if record.identity != JUNK)
    if not kept:
        raise InputError(f"{folder} holds no pictures ({', '.join(sorted(SUFFIXES))})")
    return Split(kept)


def _match(pattern: str, path: Path) -> re.Match[str]:
    match = re.match(pattern, path.name)
    if match is None:
        raise InputError(f"unexpected file name {path}; names here match {pattern}")
    return match


def _common_names(folder: Path, parts: Sequence[Path]) -> list[str]:
    """File names that all of ``parts`` hold; InputError when they do not hold the same."""
    held = {part.name: _names(part) for part in parts}
    everything = set().union(*held.values())
    lacking = [
        f"{name} is not in {part}"
        for name in sorted(everything)
        for part, names in held.items()
        if name not in names
    ]
    if lacking:
        counts = ", ".join(f"{part} {len(names)}" for part, names in held.items())
        raise InputError(f"{folder} is half-empty ({counts} files): {_first(lacking)}")
    return sorted(everything)


def _names(folder: Path) -> set[str]:
    return {path.name for path in _listed(folder) if path.suffix.lower() in SUFFIXES}


def _listed(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"dataset folder {folder} is missing")
    return list(folder.iterdir())


def _first(items: Sequence[str]) -> str:
    more = len(items) - _NAMED_AT_MOST
    return "; ".join(items[:_NAMED_AT_MOST]) + (f"; and {more} more" if more > 0 else "")
