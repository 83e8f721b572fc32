"""A contact sheet: the same individuals from several cameras, by day and by night."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mambapro.cli import InputError
from mambapro.contract import MODALITIES, SUBJECTS, Subject
from mambapro.files import replacing
from mambapro.synthetic.buffers import Bytes
from mambapro.synthetic.crops import Triplet, build_site, person_crop, vehicle_crop
from mambapro.synthetic.datasets import appearance_rng
from mambapro.synthetic.people import Person, sample_person
from mambapro.synthetic.vehicles import Vehicle, sample_vehicle

_VIEWS: dict[Subject, tuple[tuple[int, str], ...]] = {
    "person": (
        (0, "day"),
        (1, "day"),
        (2, "day"),
        (3, "dusk"),
        (0, "night"),
        (1, "night"),
        (2, "night"),
        (3, "night"),
    ),
    "vehicle": ((3, "day"), (1, "dusk"), (2, "night"), (0, "night")),
}
"""Camera and phase of day of each column."""
_SIZES: dict[Subject, tuple[int, int]] = {"person": (192, 96), "vehicle": (96, 192)}
_LABEL_PX = 128
_HEADER_PX = 20
_GAP_PX = 6
_PAPER, _INK = 248, (30, 30, 30)


def write_sheet(path: Path, *, seed: int = 0, rows: int = 6) -> Path:
    """Write a PNG of ``rows`` persons and ``rows`` vehicles, each view as RGB | NIR | TIR."""
    if rows < 1 or seed < 0:
        raise InputError(f"rows must be at least 1 and seed 0 or more, got {rows} and {seed}")
    blocks = [_block(subject, seed, rows) for subject in SUBJECTS]
    width = max(block.shape[1] for block in blocks)
    picture = np.vstack([_widen(block, width) for block in blocks])
    with replacing(path) as aside:
        if not cv2.imwrite(str(aside), picture[..., ::-1]):
            raise OSError(f"cannot write {path}")
    return path


def _block(subject: Subject, seed: int, rows: int) -> Bytes:
    lines = [_header(subject)] + [_row(subject, seed, number) for number in range(rows)]
    return np.vstack(lines)


def _header(subject: Subject) -> Bytes:
    wide = 3 * _SIZES[subject][1] + _GAP_PX
    line = np.full((_HEADER_PX, _LABEL_PX + wide * len(_VIEWS[subject]), 3), _PAPER, np.uint8)
    for i, (camera, phase) in enumerate(_VIEWS[subject]):
        _write(line, f"camera {camera + 1}, {phase}: RGB | NIR | TIR", (_LABEL_PX + i * wide, 14))
    return line


def _row(subject: Subject, seed: int, number: int) -> Bytes:
    height = _SIZES[subject][0]
    label = np.full((height + _GAP_PX, _LABEL_PX, 3), _PAPER, np.uint8)
    who = _individual(subject, seed, number)
    for i, text in enumerate([f"{subject} {number + 1}", *_describe(who)]):
        _write(label, text, (6, 18 + 16 * i))
    cells = [label]
    for column, (camera, phase) in enumerate(_VIEWS[subject]):
        cells.append(_cell(_shoot(who, seed, number, column, camera, phase)))
    return np.hstack(cells)


def _individual(subject: Subject, seed: int, number: int) -> Person | Vehicle:
    rng = appearance_rng("test", subject, seed, number)
    return sample_person(rng) if subject == "person" else sample_vehicle(rng)


def _shoot(
    who: Person | Vehicle, seed: int, number: int, column: int, camera: int, phase: str
) -> Triplet:
    rng = np.random.default_rng([seed, 0x5EE7, number, column])
    site = build_site(seed, camera)
    if isinstance(who, Person):
        return person_crop(who, site, phase, _SIZES["person"], rng)
    return vehicle_crop(who, site, phase, _SIZES["vehicle"], rng)


def _describe(who: Person | Vehicle) -> list[str]:
    if isinstance(who, Person):
        words = [who.upper_kind, who.lower_kind, f"hat: {who.hat_kind}", f"bag: {who.bag_kind}"]
        return [*words, f"{who.height_m:.2f} m", f"{who.hairstyle} hair"]
    load = [name for name, there in (("rack", who.rack), ("roof box", who.roof_box)) if there]
    return [who.kind, f"paint: {who.scheme}", " + ".join(load) or "no roof load"]


def _cell(crop: Triplet) -> Bytes:
    strip = np.hstack([crop[modality] for modality in MODALITIES])
    return np.pad(strip, ((0, _GAP_PX), (0, _GAP_PX), (0, 0)), constant_values=_PAPER)


def _widen(block: Bytes, width: int) -> Bytes:
    return np.pad(block, ((0, 0), (0, width - block.shape[1]), (0, 0)), constant_values=_PAPER)


def _write(picture: Bytes, text: str, place: tuple[int, int]) -> None:
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, _INK, 1, cv2.LINE_AA)
