"""Two rigs of three cameras: sizes, fields of view, clocks, and how their light runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mambapro.contract import MODALITIES, UNKNOWN_CAMERA, Modality
from mambapro.synthetic.backdrop import Backdrop, build_backdrop
from mambapro.synthetic.light import Light, Response, light_at

Homography = NDArray[np.float64]
"""(3, 3) from reference pixel coordinates to a camera's own."""

RIG_NAMES = ("gate", "yard")
REFERENCE: Modality = "rgb"
SIZES: dict[Modality, tuple[int, int]] = {"rgb": (640, 360), "nir": (640, 400), "tir": (640, 512)}
"""Width and height in pixels."""
FRAMES_PER_S = 25
MARGIN = (140, 150)
"""Backdrop beyond the reference picture, columns and rows: other cameras see further."""
HORIZON_ROW = 165
"""Reference row where walls meet the ground, about."""
PLANE_PX_PER_M = 85.0
"""Size at the distance where the homographies hold exactly; a person halfway down the picture."""
_BESIDE: dict[Modality, int] = {"rgb": 0, "nir": 1, "tir": -1}
"""On which side of the reference camera another one stands."""
_DROP_SHARE = 0.01
_JITTER_S = 0.003


@dataclass(frozen=True)
class Camera:
    """One camera of a rig."""

    modality: Modality
    size: tuple[int, int]
    """Width and height in pixels."""
    homography: Homography
    phase_s: float
    """Capture after the rig's trigger."""
    clock_s: float
    """What its clock shows beyond true time."""
    baseline_m: float = 0.0
    """How far it stands to the right of the reference camera."""

    def parallax(self, px_per_m: float) -> Homography:
        """Return the shift of a subject of this size in reference pixels, from where H puts it."""
        shift = np.eye(3)
        shift[0, 2] = -self.baseline_m * (px_per_m - PLANE_PX_PER_M)
        return shift


@dataclass(frozen=True)
class Rig:
    """A site: three cameras, backdrop, light."""

    name: str
    index: int
    cameras: dict[Modality, Camera]
    backdrop: Backdrop
    response: Response
    elevation: float

    def light(self, progress: float, seconds: float) -> Light:
        """Return the light at a share of the clip (0..1); ``seconds`` is its length."""
        fall = (0.5, 0.38)[self.index]
        d = 1 / (1 + math.exp((progress - fall) * 22))
        d = d * (0.95, 0.8)[self.index]
        cloud = 0.75 + 0.2 * math.sin(progress * seconds * 0.35 + self.index)
        return light_at(d, self.response, sunny=cloud * (0.9, 0.45)[self.index], air_c=9 + 11 * d)


def build_rig(seed: int, index: int, misalignment: float = 1.0, baseline_m: float = 0.0) -> Rig:
    """Return rig ``index`` (0 gate, 1 yard) of the world ``seed``.

    ``misalignment`` multiplies zoom, turn, shift and keystone between the cameras; near infrared
    and thermal stand ``baseline_m`` to the right and to the left of the reference camera.
    """
    rng = np.random.default_rng([seed, 0x216, index])
    width, height = SIZES[REFERENCE]
    tall, wide = height + 2 * MARGIN[1], width + 2 * MARGIN[0]
    horizon = (HORIZON_ROW + MARGIN[1]) / tall
    return Rig(
        RIG_NAMES[index],
        index,
        {m: _build_camera(rng, m, misalignment, baseline_m) for m in MODALITIES},
        build_backdrop(rng, tall, wide, horizon),
        replace(Response.sample(rng), lamp_level=(0.011, 0.007)[index]),
        elevation=float(rng.uniform(0.14, 0.22)),
    )


def _build_camera(
    rng: np.random.Generator, modality: Modality, misalignment: float, baseline_m: float
) -> Camera:
    phase = 0.0 if modality == REFERENCE else float(rng.uniform(-0.01, 0.01))
    clock = float(rng.uniform(-0.15, 0.15))
    homography = _homography(rng, modality, misalignment)
    beside = baseline_m * _BESIDE[modality]
    return Camera(modality, SIZES[modality], homography, phase, clock, beside)


def _homography(rng: np.random.Generator, modality: Modality, misalignment: float) -> Homography:
    """Return zoom, shift, slight rotation and keystone from the reference to a camera."""
    if modality == REFERENCE:
        return np.eye(3)
    width, height = SIZES[modality]
    ref_width, ref_height = SIZES[REFERENCE]
    zoom = float(rng.uniform(0.93, 1.0) if modality == "nir" else rng.uniform(1.0, 1.08))
    zoom += (zoom - 1) * (misalignment - 1)  # exactly the same when nothing is multiplied
    turn = float(rng.uniform(-0.02, 0.02)) * misalignment
    keystone = rng.uniform(-6e-5, 6e-5, 2) * misalignment
    shift = rng.uniform(-12, 12, 2) * misalignment
    centre = np.array([[1, 0, -ref_width / 2], [0, 1, -ref_height / 2], [0, 0, 1]])
    cosine, sine = zoom * math.cos(turn), zoom * math.sin(turn)
    rotate = np.array([[cosine, -sine, 0], [sine, cosine, 0], [keystone[0], keystone[1], 1]])
    place = np.array([[1, 0, width / 2 + shift[0]], [0, 1, height / 2 + shift[1]], [0, 0, 1]])
    matrix = place @ rotate @ centre
    return np.asarray(matrix / matrix[2, 2], np.float64)


def frame_times(
    camera: Camera, seconds: float, start_s: float, rng: np.random.Generator
) -> list[tuple[float, float]]:
    """Return (true capture time, presentation time) of each recorded frame, seconds.

    The clip starts and ends a few frames off the others', about 1 % of its frames are lost, and its
    time stamps carry clock offset and jitter.
    """
    last = round(seconds * FRAMES_PER_S) - int(rng.integers(0, 6))
    times = []
    for k in range(int(rng.integers(0, 4)), last):
        jitter = float(np.clip(rng.normal(0, _JITTER_S), -0.012, 0.012))
        captured = start_s + k / FRAMES_PER_S + camera.phase_s
        if rng.random() >= _DROP_SHARE:
            times.append((captured, captured + camera.clock_s + jitter))
    return times


def rig_yaml(rig: Rig) -> dict[str, Any]:
    """Return the entry of a rig in rigs.yaml; addresses are relative to that file.

    The camera is unknown to every model: the training sets' viewing positions are other places.
    """
    cameras: dict[str, Any] = {}
    for modality, camera in rig.cameras.items():
        cameras[modality] = {"uri": f"{rig.name}/{modality}.mp4"}
        if modality != REFERENCE:
            cameras[modality]["homography"] = [
                [round(v, 10) for v in row] for row in camera.homography.tolist()
            ]
    return {"name": rig.name, "camera": UNKNOWN_CAMERA, "reference": REFERENCE, "cameras": cameras}
