"""Write synthetic identities in the on-disk layouts of RGBNT201, RGBNT100 and MSVR310."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from mambapro.cli import InputError
from mambapro.contract import MODALITIES, Modality, Subject
from mambapro.synthetic.buffers import Bytes
from mambapro.synthetic.crops import Site, Triplet, build_site, person_crop, vehicle_crop
from mambapro.synthetic.light import PHASES, sample_phase
from mambapro.synthetic.output import is_complete, new_folder
from mambapro.synthetic.people import sample_person
from mambapro.synthetic.vehicles import sample_vehicle

FOLDERS = {"rgbnt201": "RGBNT201", "rgbnt100": "RGBNT100", "msvr310": "msvr310"}
"""Folder of each layout under the data root."""
SUBJECTS: dict[str, Subject] = {"rgbnt201": "person", "rgbnt100": "vehicle", "msvr310": "vehicle"}
SIZES: dict[Subject, tuple[int, int]] = {"person": (128, 64), "vehicle": (64, 128)}
"""Default height and width of a crop in pixels: half the size of the real sets."""
_MAX_CAMERAS = 8
_JUNK = -1
_STREAMS = {"train": 1, "test": 2, "junk": 3, "scene": 4}
"""Keys of the random streams: an appearance of one is never drawn in another."""
_RGBNT201_MODALITY = {"rgb": "RGB", "nir": "NI", "tir": "TI"}
_MSVR310_MODALITY = {"rgb": "vis", "nir": "ni", "tir": "th"}


@dataclass(frozen=True)
class Settings:
    """All that decides the bytes of a dataset."""

    layout: str
    identities: tuple[int, int]
    images_per_camera: int
    cameras: int
    size: tuple[int, int]
    seed: int


@dataclass(frozen=True)
class Shot:
    """One picture to take."""

    split: str
    """train, test or junk."""
    identity: int
    """Label in the file name, from 1; -1 is junk."""
    number: int
    """Number of the individual within its split, from 0."""
    camera: int
    """Viewing position, from 0."""
    index: int


def write_dataset(
    layout: str,
    root: Path,
    *,
    identities: tuple[int, int] = (100, 40),
    images_per_camera: int = 3,
    cameras: int = 4,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    workers: int | None = None,
) -> Path:
    """Write a dataset of ``layout`` (rgbnt201, rgbnt100 or msvr310); return its folder in ``root``.

    ``identities`` counts (training, test) individuals, none in both; ``size`` is the (height,
    width) of a crop in pixels, by default 128x64 for persons and 64x128 for vehicles; ``workers``
    is the number of processes, by default two. The same settings give the same bytes with any
    number of workers. An existing folder with the same settings is kept; one with other contents
    is an `InputError`.
    """
    if layout not in FOLDERS:
        raise InputError(f"layout must be one of {', '.join(FOLDERS)}, got {layout!r}")
    settings = Settings(
        layout, identities, images_per_camera, cameras, size or SIZES[SUBJECTS[layout]], seed
    )
    _check(settings)
    folder = Path(root) / FOLDERS[layout]
    if is_complete(folder, asdict(settings)):
        return folder
    with new_folder(folder, asdict(settings)) as aside:
        _write_all(settings, aside, worker_count(workers))
    return folder


def worker_count(workers: int | None) -> int:
    """Return how many processes to use: two where there are two cores, unless told otherwise."""
    return min(2, os.cpu_count() or 1) if workers is None else max(1, workers)


def appearance_rng(split: str, subject: Subject, seed: int, number: int) -> np.random.Generator:
    """Return the random stream of one individual's appearance."""
    return np.random.default_rng([seed, _STREAMS[split], 0 if subject == "person" else 1, number])


def _check(settings: Settings) -> None:
    if min(settings.identities) < 1 or settings.images_per_camera < 1:
        raise InputError(f"identities and images per camera must be at least 1, got {settings}")
    if settings.seed < 0:
        raise InputError(f"seed must be 0 or more, got {settings.seed}")
    if not 1 <= settings.cameras <= _MAX_CAMERAS:
        raise InputError(f"cameras must be 1 to {_MAX_CAMERAS}, got {settings.cameras}")
    if sum(settings.identities) > 9999:
        raise InputError(f"at most 9999 identities fit the file names, got {settings.identities}")
    if min(settings.size) < 16 or max(settings.size) > 480:
        raise InputError(f"size must be 16 to 480 pixels a side, got {settings.size}")


def _write_all(settings: Settings, folder: Path, workers: int) -> None:
    shots = list(_shots(settings))
    if workers == 1 or len(shots) < 64:
        _write_shots(settings, folder, shots)
        return
    parts = [shots[start::workers] for start in range(workers)]
    # Spawned, not forked: OpenCV's and PyTorch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        for future in [pool.submit(_write_shots, settings, folder, part) for part in parts]:
            future.result()


def _shots(settings: Settings) -> Iterator[Shot]:
    """Yield every picture of a dataset."""
    train, test = settings.identities
    for label in range(1, train + test + 1):
        split, number = ("train", label - 1) if label <= train else ("test", label - 1 - train)
        for camera in range(settings.cameras):
            for index in range(settings.images_per_camera):
                yield Shot(split, label, number, camera, index)
    if settings.layout == "rgbnt100":
        for camera in range(settings.cameras):
            for index in range(max(1, test // 10)):
                yield Shot("junk", _JUNK, camera * 1000 + index, camera, index)


def _write_shots(settings: Settings, folder: Path, shots: list[Shot]) -> None:
    cv2.setNumThreads(1)
    writer = {"rgbnt201": _write_rgbnt201, "rgbnt100": _write_rgbnt100, "msvr310": _write_msvr310}
    for shot in shots:
        phase, crop, quality = take(settings, shot)
        writer[settings.layout](folder, shot, phase, crop, quality)


def take(settings: Settings, shot: Shot) -> tuple[str, Triplet, int]:
    """Return the phase of day, the crop and the JPEG quality of a shot."""
    subject = SUBJECTS[settings.layout]
    rng = np.random.default_rng(
        [settings.seed, 9, _STREAMS[shot.split], shot.number, shot.camera, shot.index]
    )
    phase, quality = sample_phase(rng), int(rng.integers(72, 95))
    who = appearance_rng(shot.split, subject, settings.seed, shot.number)
    site = _site(settings.seed, shot.camera)
    if subject == "person":
        return phase, person_crop(sample_person(who), site, phase, settings.size, rng), quality
    return phase, vehicle_crop(sample_vehicle(who), site, phase, settings.size, rng), quality


@lru_cache(maxsize=_MAX_CAMERAS)
def _site(seed: int, camera: int) -> Site:
    return build_site(seed, camera)


def _write_rgbnt201(folder: Path, shot: Shot, phase: str, crop: Triplet, quality: int) -> None:
    split = "train_171" if shot.split == "train" else "test"
    name = f"{shot.identity:06d}_cam{shot.camera + 1}_{PHASES.index(phase)}_{shot.index:02d}.jpg"
    for modality in MODALITIES:
        _save(folder / split / _RGBNT201_MODALITY[modality] / name, crop[modality], quality)


def _write_rgbnt100(folder: Path, shot: Shot, phase: str, crop: Triplet, quality: int) -> None:
    label = "-1" if shot.identity == _JUNK else f"{shot.identity:04d}"
    name = f"{label}_c{shot.camera + 1}_{PHASES.index(phase)}{shot.index:02d}.jpg"
    panels: Bytes = np.hstack([_junk(crop, m) if label == "-1" else crop[m] for m in MODALITIES])
    for split in _vehicle_splits(shot, "query"):
        _save(folder / "rgbir" / split / name, panels, quality)


def _junk(crop: Triplet, modality: Modality) -> Bytes:
    """Return the corner of a crop, blown up: a detection that shows no whole vehicle."""
    height, width = crop[modality].shape[:2]
    return np.asarray(
        cv2.resize(crop[modality][: height // 2, : width // 3], (width, height)), np.uint8
    )


def _write_msvr310(folder: Path, shot: Shot, phase: str, crop: Triplet, quality: int) -> None:
    # A scene is one recording session: a viewing position in one light.
    scene = 1 + shot.camera * len(PHASES) + PHASES.index(phase)
    name = f"{shot.identity:04d}_s{scene:03d}_v{shot.camera}_{shot.index:03d}.jpg"
    for split in _vehicle_splits(shot, "query3"):
        for modality in MODALITIES:
            vehicle = folder / split / f"{shot.identity:04d}"
            _save(vehicle / _MSVR310_MODALITY[modality] / name, crop[modality], quality)


def _vehicle_splits(shot: Shot, query: str) -> tuple[str, ...]:
    """Return the folders of a vehicle's picture; queries are also in the gallery, as in reality."""
    if shot.split == "train":
        return ("bounding_box_train",)
    if shot.index == 0 and shot.split == "test":
        return (query, "bounding_box_test")
    return ("bounding_box_test",)


def _save(path: Path, picture: Bytes, quality: int) -> None:
    """Write an (H, W, 3) uint8 R, G, B picture as JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    path.write_bytes(data.tobytes())
