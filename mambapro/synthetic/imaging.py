"""From a surface under a light to what each of the three cameras records."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np

from mambapro.contract import Modality
from mambapro.synthetic.buffers import Bytes, Plane, as_plane
from mambapro.synthetic.light import Light
from mambapro.synthetic.surfaces import (
    EMISSIVITY,
    EXCESS,
    GLOSS,
    GLOW,
    NIR,
    WARMTH,
    Colour,
    Surface,
)

BLOOD_C = 34.0
"""Skin temperature that `warmth` 1 stands for."""
_BANK = 512
_MOST_LEAN = 0.4
"""Sideways reach of a shadow over body height, so that it stays on the subject's canvas."""


def expose(
    modality: Modality, surface: Surface, light: Light, shadow: Plane | None = None
) -> Plane:
    """Return the picture before noise and lens: (H, W, 3) R, G, B or (H, W), float32, 0..255.

    ``shadow`` (H, W) is the share of sunlight that arrives, 1 where absent.
    """
    if modality == "rgb":
        return _visible(surface, light, shadow)
    if modality == "nir":
        return _near_infrared(surface, light, shadow)
    return _thermal(surface, light, shadow)


def _visible(surface: Surface, light: Light, shadow: Plane | None) -> Plane:
    sky, sun = _sky_share(surface), _towards(surface, light.sun)
    if shadow is not None:
        sun = sun * shadow
        sky = sky * (0.55 + 0.45 * shadow)
    lamp = 0.35 + 0.65 * _towards(surface, light.lamp)
    gloss, glow = surface.planes[GLOSS], surface.planes[GLOW]
    shine = gloss * (0.25 + np.maximum(surface.normal[1], 0)) + 0.7 * gloss * sun**8
    out = np.empty((*sky.shape, 3), np.float32)
    for i in range(3):
        arriving = light.sky_rgb[i] * sky + light.sun_rgb[i] * sun + light.lamp_rgb[i] * lamp + glow
        mirrored = shine * (light.sky_rgb[i] + light.lamp_rgb[i])
        out[..., i] = light.rgb_gain[i] * (surface.planes[i] * arriving + mirrored) - light.black
    if light.daylight < 0.5 and glow.max() > 0:
        out += cv2.GaussianBlur(glow, (0, 0), 7)[..., None] * np.float32(0.6 * light.rgb_gain[1])
    return tone(out)


def _near_infrared(surface: Surface, light: Light, shadow: Plane | None) -> Plane:
    sky, sun = _sky_share(surface), _towards(surface, light.sun)
    if shadow is not None:
        sun = sun * shadow
        sky = sky * (0.55 + 0.45 * shadow)
    flash = 0.25 + 0.75 * surface.normal[2]
    arriving = light.nir_sky * sky + light.nir_sun * sun + light.nir_active * flash
    arriving += 0.3 * surface.planes[GLOW]
    mirrored = surface.planes[GLOSS] * (light.nir_sky * 0.4)
    return tone(light.nir_gain * (surface.planes[NIR] * arriving + mirrored))


def _thermal(surface: Surface, light: Light, shadow: Plane | None) -> Plane:
    planes = surface.planes
    celsius = light.air_c + planes[WARMTH] * (BLOOD_C - light.air_c) + planes[EXCESS]
    if light.solar_c > 0:
        sun = _towards(surface, light.sun)
        celsius = celsius + light.solar_c * (sun if shadow is None else sun * shadow)
    up = np.clip(surface.normal[1] * 0.9 + 0.1, 0, 1)
    mirrored = light.air_c + (light.sky_c - light.air_c) * up
    emissivity = planes[EMISSIVITY]
    apparent = emissivity * celsius + (1 - emissivity) * mirrored
    low, high = light.thermal_c
    share = np.clip((apparent - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    # Thermal cameras stretch the crowded cool end of their range.
    return as_plane(np.float32(255) * np.sqrt(share * (0.35 + np.float32(0.65) * share)))


def _sky_share(surface: Surface) -> Plane:
    return as_plane(np.float32(0.62) + np.float32(0.38) * surface.normal[1])


def _towards(surface: Surface, direction: Colour) -> Plane:
    normal = surface.normal
    right, up, near = (np.float32(part) for part in direction)
    return as_plane(np.maximum(right * normal[0] + up * normal[1] + near * normal[2], 0))


def tone(values: Plane) -> Plane:
    """Return grey levels 0..255 of linear exposure: a square root with a soft shoulder."""
    values = np.maximum(values, 0)
    bent = values * (1 + values * np.float32(0.06)) / (1 + values * np.float32(0.35))
    return as_plane(np.float32(255) * np.sqrt(bent))


def cast_shadow(alpha: Plane, foot_row: float, light: Light) -> Plane:
    """Return the share of sunlight that reaches the ground beside a subject, (H, W) 0..1.

    ``alpha`` (H, W) is the subject's outline, which falls along the ground away from the sun.
    """
    right, up, near = light.sun
    length = 0.75 / max(up, 0.3)
    lean = max(-_MOST_LEAN, min(_MOST_LEAN, -length * right))
    squash = 0.22 * length * math.copysign(max(abs(near), 0.3), near)
    matrix = np.array(
        [[1, -lean, lean * foot_row], [0, squash, (1 - squash) * foot_row]], np.float64
    )
    fallen = cv2.warpAffine(alpha, matrix, (alpha.shape[1], alpha.shape[0]))
    fallen = cv2.GaussianBlur(fallen, (0, 0), 1.4)
    under = np.array([[1, 0, 0], [0, 0.09, 0.91 * foot_row + 1]], np.float64)
    contact = cv2.warpAffine(alpha, under, (alpha.shape[1], alpha.shape[0]))
    contact = cv2.GaussianBlur(contact, (0, 0), max(1.0, 0.02 * alpha.shape[0]))
    return as_plane((1 - 0.9 * fallen) * (1 - 0.75 * contact))


@lru_cache(maxsize=1)
def _noise_bank() -> Plane:
    """Return (3, 512, 512) unit noise with fine and coarse grain, made once a process."""
    rng = np.random.default_rng(20250117)
    fine = rng.standard_normal((3, _BANK, _BANK)).astype(np.float32)
    coarse = rng.standard_normal((3, _BANK // 3 + 1, _BANK // 3 + 1)).astype(np.float32)
    grown = [cv2.resize(plane, (_BANK, _BANK), interpolation=cv2.INTER_LINEAR) for plane in coarse]
    return as_plane(0.75 * fine + 0.8 * np.stack(grown))


def noise(rng: np.random.Generator, height: int, width: int, channels: int) -> Plane:
    """Return (H, W, channels) or, for one channel, (H, W) noise of about unit deviation."""
    bank = _noise_bank()
    y, x = int(rng.integers(_BANK - height + 1)), int(rng.integers(_BANK - width + 1))
    first = int(rng.integers(3))
    if channels == 1:
        return bank[first, y : y + height, x : x + width]
    return np.moveaxis(
        bank[[first, (first + 1) % 3, (first + 2) % 3], y : y + height, x : x + width], 0, -1
    )


def noise_level(modality: Modality, light: Light) -> float:
    """Return the standard deviation of a camera's noise in grey levels."""
    return {"rgb": light.rgb_noise, "nir": light.nir_noise, "tir": light.tir_noise}[modality]


@lru_cache(maxsize=8)
def vignette(height: int, width: int, strength: float) -> Plane:
    """Return the lens's fall-off, (H, W) 0..1."""
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    return as_plane(1 - np.float32(strength) * (x * x + y * y) / 2)


def to_bytes(values: Plane) -> Bytes:
    """Return grey levels rounded and clipped to uint8."""
    return np.asarray(np.clip(values + np.float32(0.5), 0, 255), np.uint8)
