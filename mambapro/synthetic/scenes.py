"""Write a whole scene: six clips of two rigs, their homographies and the ground truth."""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from mambapro.cli import InputError
from mambapro.contract import MODALITIES, Modality
from mambapro.synthetic.clips import Painter
from mambapro.synthetic.datasets import worker_count
from mambapro.synthetic.output import is_complete, new_folder
from mambapro.synthetic.rigs import RIG_NAMES, Rig, build_rig, frame_times, rig_yaml
from mambapro.synthetic.routes import build_actors, plan_visits
from mambapro.synthetic.video import write_clip

START_S = 0.25
"""True time of the first trigger: late enough that no clock shows a negative time."""


@dataclass(frozen=True)
class Settings:
    """All that decides the content of a scene."""

    seed: int
    seconds: float
    people: int
    vehicles: int
    misalignment: float = 1.0
    baseline_m: float = 0.0

    def stamp(self) -> dict[str, Any]:
        """Return what the folder's stamp says; options that are off are not named."""
        off = {"misalignment": 1.0, "baseline_m": 0.0}
        return {k: v for k, v in asdict(self).items() if k not in off or v != off[k]}


def write_scene(
    root: Path,
    *,
    seed: int = 0,
    seconds: float = 72.0,
    people: int = 12,
    vehicles: int = 6,
    misalignment: float = 1.0,
    baseline_m: float = 0.0,
    workers: int | None = None,
) -> Path:
    """Write `rigs.yaml`, `truth.jsonl` and six H.264 clips into the folder ``root`` and return it.

    Boxes of the truth are in each camera's own pixels, times in seconds. Existing output of the
    same settings is kept; a folder with other contents is an `InputError`. ``misalignment``
    multiplies what lies between the cameras' pictures, ``baseline_m`` sets the cameras apart, so
    that subjects nearer or farther than the plane of the homographies are displaced. ``workers`` is
    the number of processes, by default two.
    """
    settings = Settings(seed, seconds, people, vehicles, misalignment, baseline_m)
    if not 0.5 <= seconds <= 3600:
        raise InputError(f"seconds must be 0.5 to 3600, got {seconds}")
    if seed < 0:
        raise InputError(f"seed must be 0 or more, got {seed}")
    if min(people, vehicles) < 0 or people + vehicles == 0:
        raise InputError(f"a scene needs a person or a vehicle, got {people} and {vehicles}")
    if not 0 <= misalignment <= 6:
        raise InputError(f"misalignment must be 0 to 6 times the usual, got {misalignment}")
    if not 0 <= baseline_m <= 1:
        raise InputError(f"baseline must be 0 to 1 m, got {baseline_m}")
    root = Path(root)
    if is_complete(root, settings.stamp()):
        return root
    with new_folder(root, settings.stamp()) as aside:
        _write_all(settings, aside, worker_count(workers))
    return root


def _write_all(settings: Settings, folder: Path, workers: int) -> None:
    rigs = [rig_yaml(_rig(settings, index)) for index in range(len(RIG_NAMES))]
    text = yaml.safe_dump({"rigs": rigs}, sort_keys=False, default_flow_style=None)
    (folder / "rigs.yaml").write_text(text, encoding="utf-8")
    for name in RIG_NAMES:
        (folder / name).mkdir()
    jobs = [
        (index, modality) for modality in reversed(MODALITIES) for index in range(len(RIG_NAMES))
    ]
    lines = _run(settings, folder, jobs, workers)
    lines.sort(key=lambda line: (line["rig"], line["modality"], line["frame"]))
    truth = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "truth.jsonl").write_text(truth, encoding="utf-8")


def _rig(settings: Settings, index: int) -> Rig:
    return build_rig(settings.seed, index, settings.misalignment, settings.baseline_m)


def _run(
    settings: Settings, folder: Path, jobs: list[tuple[int, Modality]], workers: int
) -> list[dict[str, Any]]:
    if workers == 1:
        return [line for job in jobs for line in _write_camera(settings, folder, *job)]
    # Spawned, not forked: OpenCV's and PyTorch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [pool.submit(_write_camera, settings, folder, *job) for job in jobs]
        return [line for future in futures for line in future.result()]


def _write_camera(
    settings: Settings, folder: Path, index: int, modality: Modality
) -> list[dict[str, Any]]:
    """Write one camera's clip and return its truth."""
    cv2.setNumThreads(1)
    rig = _rig(settings, index)
    actors = build_actors(settings.seed, settings.people, settings.vehicles)
    visits = plan_visits(actors, settings.seed, settings.seconds)
    camera = rig.cameras[modality]
    rng = np.random.default_rng([settings.seed, 0x71E5, index, MODALITIES.index(modality)])
    times = frame_times(camera, settings.seconds, START_S, rng)
    painter = Painter(rig, camera, visits, settings.seconds, settings.seed)
    return list(write_clip(folder / rig.name / f"{modality}.mp4", times, painter))
