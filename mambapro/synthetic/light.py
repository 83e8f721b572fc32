"""What shines on a picture and how warm the air is: from noon to street-lamp night."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mambapro.synthetic.surfaces import Colour

PHASES = ("day", "dusk", "night")
PHASE_SHARES = (0.45, 0.15, 0.40)
_DAYLIGHT = {"day": (0.7, 1.0), "dusk": (0.16, 0.34), "night": (0.0, 0.03)}
_MAX_GAIN = 5.0


@dataclass(frozen=True)
class Light:
    """Illumination in units of full sun, temperatures in °C, and how the cameras answer."""

    daylight: float
    """1 noon, 0 deep night."""
    sky_rgb: Colour
    sun_rgb: Colour
    lamp_rgb: Colour
    sun: Colour
    """Direction to the sun: right, up, towards the viewer, unit length."""
    lamp: Colour
    nir_sky: float
    nir_sun: float
    nir_active: float
    """The rig's own infrared lamp."""
    air_c: float
    sky_c: float
    """Temperature that the sky mirrors."""
    stored: float
    """Sun's heat kept by ground and walls: 1 by day, less by night."""
    solar_c: float
    """Heating of a surface turned to the sun."""
    rgb_gain: Colour
    nir_gain: float
    black: float
    """Linear level below which the visible camera shows nothing."""
    thermal_c: tuple[float, float]
    """Temperatures shown as black and as white."""
    rgb_noise: float
    nir_noise: float
    tir_noise: float
    """Standard deviations in grey levels of 255."""


@dataclass(frozen=True)
class Response:
    """How one rig's cameras differ from the next rig's."""

    cast: Colour = (1.0, 1.0, 1.0)
    nir: float = 1.0
    lamp_rgb: Colour = (1.0, 0.68, 0.34)
    lamp_level: float = 0.006
    sun_azimuth: float = 0.7

    @staticmethod
    def sample(rng: np.random.Generator) -> Response:
        """Draw a rig's response."""
        cast = rng.uniform(0.89, 1.11, 3)
        warm = float(rng.uniform(0.25, 0.8))
        return Response(
            cast=(float(cast[0]), float(cast[1]), float(cast[2])),
            nir=float(rng.uniform(0.86, 1.16)),
            lamp_rgb=(1.0, 0.5 + 0.5 * warm, warm),
            lamp_level=float(rng.uniform(0.003, 0.009)),
            sun_azimuth=float(rng.uniform(-1.3, 1.3)),
        )


def sample_phase(rng: np.random.Generator) -> str:
    """Draw day, dusk or night in their usual shares."""
    return PHASES[int(rng.choice(3, p=PHASE_SHARES))]


def sample_light(rng: np.random.Generator, phase: str, response: Response) -> Light:
    """Draw the light of one picture with its nuisances: weather, air, exposure."""
    low, high = _DAYLIGHT[phase]
    daylight = float(rng.uniform(low, high))
    warm = 9 * daylight
    return light_at(
        daylight,
        response,
        sunny=float(rng.choice([0.15, 0.6, 1.0])),
        azimuth=response.sun_azimuth + float(rng.normal(0, 0.4)),
        air_c=float(rng.uniform(3 + warm, 14 + warm)),
        exposure=float(np.exp(rng.normal(0, 0.13))),
        nir_exposure=float(np.exp(rng.normal(0, 0.1))),
        thermal_offset=float(rng.uniform(-2.0, 2.0)),
        thermal_stretch=float(rng.uniform(0.9, 1.12)),
    )


def light_at(
    daylight: float,
    response: Response,
    *,
    sunny: float = 0.8,
    azimuth: float | None = None,
    air_c: float = 15.0,
    exposure: float = 1.0,
    nir_exposure: float = 1.0,
    thermal_offset: float = 0.0,
    thermal_stretch: float = 1.0,
) -> Light:
    """Return the light at a height of the day; auto-exposure follows until its gain runs out."""
    d = daylight
    sky, sun = 0.56 * d**1.15, 1.15 * sunny * d**1.8
    orange = 1 - d
    lamp = response.lamp_level * (1 - d) ** 4
    level = 0.7 * sky + 0.55 * sun + lamp
    gain = min(0.78 / level, _MAX_GAIN) * exposure
    strain = max(0.0, gain - 1) / (_MAX_GAIN - 1)
    active = 0.55 * (1 - min(1.0, d / 0.4)) ** 1.5
    nir_sky, nir_sun = 0.5 * d, 0.75 * sunny * d**1.6
    nir_level = 0.7 * nir_sky + 0.55 * nir_sun + 0.8 * active
    angle = response.sun_azimuth if azimuth is None else azimuth
    rise = 0.35 + 0.55 * d
    low_c = air_c - 6 + thermal_offset
    span = max(16.0, (36.5 - low_c)) * thermal_stretch
    return Light(
        daylight=d,
        sky_rgb=(0.92 * sky, sky, 1.12 * sky),
        sun_rgb=(sun * (1.05 + 0.25 * orange), sun, sun * (0.92 - 0.45 * orange)),
        lamp_rgb=_scale(response.lamp_rgb, lamp),
        sun=_unit(np.sin(angle), rise, 0.7 * np.cos(angle)),
        lamp=_unit(-np.sin(angle), 1.6, 0.5),
        nir_sky=nir_sky,
        nir_sun=nir_sun,
        nir_active=active,
        air_c=air_c,
        sky_c=air_c - 14 - 8 * sunny,
        stored=0.35 + 0.65 * d,
        solar_c=5.0 * sunny * d * d,
        rgb_gain=_scale(response.cast, gain),
        nir_gain=min(0.58 / nir_level, 4.0) * response.nir * nir_exposure,
        black=0.004 * strain,
        thermal_c=(low_c, low_c + span),
        rgb_noise=1.6 + 9.0 * strain * (1 - d) ** 2,
        nir_noise=1.8 + 3.0 * (1 - d),
        tir_noise=2.6,
    )


def _scale(colour: Colour, factor: float) -> Colour:
    red, green, blue = colour
    return red * factor, green * factor, blue * factor


def _unit(right: float, up: float, near: float) -> Colour:
    size = float(np.sqrt(right * right + up * up + near * near))
    return float(right) / size, float(up) / size, float(near) / size
