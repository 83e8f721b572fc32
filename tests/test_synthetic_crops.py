"""What the three cameras see of one subject: the physics that the pipeline relies on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mambapro.contract import MODALITIES
from mambapro.synthetic.crops import Site, Triplet, build_site, person_crop, vehicle_crop
from mambapro.synthetic.people import Garment, Person, sample_person
from mambapro.synthetic.surfaces import Material
from mambapro.synthetic.vehicles import sample_vehicle

SIZE = (96, 48)
MIDDLE = (slice(24, 52), slice(16, 32))
"""Rows and columns that a person's trunk fills."""


@pytest.fixture(scope="module")
def site() -> Site:
    return build_site(0, 0)


def people(count: int) -> list[Person]:
    return [sample_person(np.random.default_rng([5, number])) for number in range(count)]


def shoot(person: Person, site: Site, phase: str, seed: int = 3) -> Triplet:
    return person_crop(person, site, phase, SIZE, np.random.default_rng(seed))


def recloth(garment: Garment, **changes: Any) -> Garment:
    base, accent = (replace(cloth, **changes) for cloth in (garment.base, garment.accent))
    return replace(garment, base=base, accent=accent)


def test_crop_has_contract_shape_and_type(site: Site) -> None:
    crop = shoot(people(1)[0], site, "day")
    assert list(crop) == list(MODALITIES)
    for picture in crop.values():
        assert picture.shape == (*SIZE, 3)
        assert picture.dtype == np.uint8


def test_infrared_has_no_colour(site: Site) -> None:
    crop = shoot(people(1)[0], site, "day")
    for modality in ("nir", "tir"):
        assert np.ptp(crop[modality], axis=-1).max() == 0
    assert np.ptp(crop["rgb"], axis=-1).max() > 20


def test_same_seed_gives_same_pixels(site: Site) -> None:
    person = people(1)[0]
    first, second, other = (
        shoot(person, site, "day", 1),
        shoot(person, site, "day", 1),
        shoot(person, site, "day", 2),
    )
    assert all(np.array_equal(first[m], second[m]) for m in MODALITIES)
    assert not any(np.array_equal(first[m], other[m]) for m in MODALITIES)


def test_visible_camera_is_nearly_blind_at_night_and_infrared_is_not(site: Site) -> None:
    crops = {
        phase: [shoot(p, site, phase, i) for i, p in enumerate(people(12))]
        for phase in ("day", "night")
    }
    mean = {
        phase: {m: np.median([c[m].mean() for c in crops[phase]]) for m in MODALITIES}
        for phase in crops
    }
    assert mean["night"]["rgb"] < 0.3 * mean["day"]["rgb"]
    assert mean["night"]["nir"] > 0.6 * mean["day"]["nir"]
    assert mean["night"]["tir"] > 0.6 * mean["day"]["tir"]


def test_visible_contrast_drowns_in_noise_at_night(site: Site) -> None:
    light = Material((0.8, 0.8, 0.8), 0.5)
    person = people(1)[0]
    pale, dark = (
        replace(person, upper=Garment(c, c))
        for c in (light, replace(light, rgb=(0.02, 0.02, 0.02)))
    )

    def gap(phase: str) -> float:
        pairs = [
            (shoot(pale, site, phase, s)["rgb"], shoot(dark, site, phase, s)["rgb"])
            for s in range(6)
        ]
        return float(np.median([a[MIDDLE].mean() - b[MIDDLE].mean() for a, b in pairs]))

    assert gap("day") > 60
    assert gap("night") < 0.4 * gap("day")


def test_garments_alike_in_visible_light_can_differ_in_near_infrared(site: Site) -> None:
    person = people(1)[0]
    bright = replace(person, upper=recloth(person.upper, nir=0.85), bag_kind="none")
    dull = replace(person, upper=recloth(person.upper, nir=0.06), bag_kind="none")
    for phase in ("day", "night"):
        one, two = shoot(bright, site, phase), shoot(dull, site, phase)
        assert np.array_equal(one["rgb"], two["rgb"])
        assert np.array_equal(one["tir"], two["tir"])
        assert one["nir"][MIDDLE].mean() > two["nir"][MIDDLE].mean() + 30


def test_thermal_camera_sees_no_dye_but_insulation(site: Site) -> None:
    person = people(1)[0]
    red = replace(person, upper=recloth(person.upper, rgb=(0.6, 0.02, 0.02), nir=0.1))
    blue = replace(person, upper=recloth(person.upper, rgb=(0.02, 0.05, 0.6), nir=0.8))
    thick = replace(person, upper=replace(recloth(person.upper, warmth=0.1), heat_step=0.0))
    thin = replace(person, upper=replace(recloth(person.upper, warmth=0.8), heat_step=0.0))
    for phase in ("day", "night"):
        assert np.array_equal(shoot(red, site, phase)["tir"], shoot(blue, site, phase)["tir"])
        warm, cold = (
            shoot(thin, site, phase)["tir"][MIDDLE],
            shoot(thick, site, phase)["tir"][MIDDLE],
        )
        assert warm.mean() > cold.mean() + 15


def test_warm_engine_shows_only_in_thermal() -> None:
    vehicle = sample_vehicle(np.random.default_rng(3))
    site = build_site(0, 0)
    pair = [replace(vehicle, engine_c=heat, grille_c=heat) for heat in (0.0, 18.0)]
    cold, hot = (vehicle_crop(v, site, "day", (48, 96), np.random.default_rng(4)) for v in pair)
    assert np.array_equal(cold["rgb"], hot["rgb"])
    assert np.array_equal(cold["nir"], hot["nir"])
    assert hot["tir"].astype(int).max() > cold["tir"].astype(int).max() + 10


def test_individuals_differ_in_every_modality_by_day(site: Site) -> None:
    crops = [shoot(person, site, "day") for person in people(4)]
    for modality in MODALITIES:
        trunks = [crop[modality][MIDDLE].astype(float) for crop in crops]
        gaps = [np.abs(a - b).mean() for i, a in enumerate(trunks) for b in trunks[:i]]
        assert np.median(gaps) > 12


@pytest.mark.parametrize("camera", range(8))
def test_every_viewing_position_shows_the_subject(camera: int) -> None:
    rng = np.random.default_rng(camera)
    place = build_site(1, camera)
    assert person_crop(people(1)[0], place, "day", SIZE, rng)["rgb"].std() > 10
    assert vehicle_crop(sample_vehicle(rng), place, "day", (32, 64), rng)["rgb"].std() > 10
