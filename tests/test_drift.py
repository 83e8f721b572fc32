"""The drift monitor: what it measures, when it raises and ends an alert; what a board tells."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from calibration.match_rates import fuse_visits
from mambapro.cli import InputError
from mambapro.contract import MODALITIES
from mambapro.drift import STATISTICS, drift_reference, statistics
from mambapro.metrics import Labels, normalise_rows
from runtime.config import DriftConfig
from runtime.identity.identification import Sighting
from runtime.operation import metrics
from runtime.operation.board import power_w, temperatures_c
from runtime.operation.drift import DriftMonitor, distance_from_even
from runtime.operation.metrics import LiveCollector
from runtime.watching.crops import Sample
from runtime.watching.tracking import Track

CHANNELS = 24
COMPLETE = "rgb+nir+tir"


def tracks(seed, count, dark=None, identities=None):
    """(count, E) unit embeddings of random persons; a dark modality says the same of everybody."""
    random = np.random.default_rng(seed)
    people = random.standard_normal((identities or count, 3, CHANNELS)) + 0.7
    rows = people[random.integers(0, len(people), count)]
    rows = rows + 0.3 * random.standard_normal(rows.shape)
    if dark is not None:
        rows[:, MODALITIES.index(dark)] = 0.4
    return normalise_rows(rows.reshape(count, -1)).astype(np.float32)


def sighting(embedding, rig="gate", modalities=MODALITIES, end_s=1.0):
    track = Track(1, 0.0, end_s, (0, 0, 9, 9), (0, 0, 9, 9), confirmed=True)
    crop = np.zeros((4, 4, 3), np.uint8)
    shown = Sample(rig, 1, end_s, dict.fromkeys(modalities, crop), 1.0)
    return Sighting(rig, track, "person", 0.0, [shown], [embedding])


def monitor(**settings):
    reference = drift_reference(tracks(0, 320), MODALITIES)
    return DriftMonitor(DriftConfig(**settings), {"person": {COMPLETE: reference}})


def test_the_statistics_are_length_and_cosine_of_each_part():
    rows, centre = tracks(1, 5), np.arange(1.0, 3 * CHANNELS + 1)
    found = statistics(rows, centre)
    assert set(found) == {f"{m}.{s}" for m in MODALITIES for s in STATISTICS}
    part, middle = rows[2, CHANNELS : 2 * CHANNELS], centre[CHANNELS : 2 * CHANNELS]
    assert found["nir.share"][2] == pytest.approx(np.sqrt((part**2).sum()), rel=1e-6)
    cosine = part @ middle / np.sqrt((part**2).sum() * (middle**2).sum())
    assert found["nir.likeness"][2] == pytest.approx(cosine, rel=1e-6)
    assert sum(found[f"{m}.share"][2] ** 2 for m in MODALITIES) == pytest.approx(1, rel=1e-5)


def test_the_distance_is_the_largest_gap_between_the_distributions():
    random = np.random.default_rng(3)
    values = random.random(40) ** 2
    fine = np.linspace(0, 1, 200_001)
    below = (values[:, None] <= fine).mean(axis=0)
    assert distance_from_even(values) == pytest.approx(np.abs(below - fine).max(), abs=1e-4)
    assert distance_from_even([0.5] * 10) == 0.5


def test_the_same_distribution_raises_nothing():
    """5,000 sightings of 200 people, each window looked at by 6 statistics: no false alarm."""
    watched = monitor()
    assert watched.look([sighting(row) for row in tracks(7, 5000, identities=200)]) == []
    assert max(drift.distance for drift in watched.found().values()) < 0.4


@pytest.mark.parametrize("dark", MODALITIES)
def test_a_dark_modality_raises_one_alert_and_ends_it_once(dark):
    watched = monitor(window=24)
    assert watched.look([sighting(row) for row in tracks(8, 60)]) == []
    raised = watched.look([sighting(row, end_s=9.0) for row in tracks(9, 60, dark)])
    assert (dark, True) in [(event["modality"], event["alert"]) for event in raised]
    assert len({event["modality"] for event in raised}) == len(raised)
    first = next(event for event in raised if event["modality"] == dark)
    assert (first["event"], first["rig"], first["sightings"]) == ("drift", "gate", 24)
    assert first["distance"] > 0.55
    assert watched.found()["gate", "person", dark].alert
    cleared = watched.look([sighting(row) for row in tracks(10, 60)])
    assert sorted((e["modality"], e["alert"]) for e in cleared) == sorted(
        (e["modality"], False) for e in raised
    )


def test_between_the_limits_nothing_changes():
    watched = monitor(window=8, raise_at=0.6, clear_at=0.4)
    key = ("gate", "person", "rgb")
    rows = [sighting(row) for row in tracks(11, 400)]
    dark = [sighting(row) for row in tracks(12, 8, "rgb")]
    watched.look(rows[:8] + dark)
    assert watched.found()[key].alert
    for one in rows[8:]:
        before = watched.found()[key].alert
        events = [e for e in watched.look([one]) if e["modality"] == "rgb"]
        drift = watched.found()[key]
        if before and drift.distance > 0.4:
            assert drift.alert
            assert not events


def test_nothing_is_said_before_the_window_is_full_or_without_a_reference():
    watched = monitor(window=24)
    dark = [sighting(row) for row in tracks(9, 23, "tir")]
    assert watched.look(dark) == []
    assert watched.found() == {}
    lacking = [sighting(row, modalities=("rgb",)) for row in tracks(9, 60)]
    assert watched.look(lacking) == []
    assert DriftMonitor(DriftConfig(), {}).look(dark) == []


def test_rigs_are_watched_apart_and_forgotten_when_they_leave():
    watched = monitor(window=8)
    watched.look([sighting(row, "gate") for row in tracks(1, 8, "tir")])
    watched.look([sighting(row, "yard") for row in tracks(2, 8)])
    assert watched.found()["gate", "person", "tir"].alert
    assert not watched.found()["yard", "person", "tir"].alert
    watched.leave("gate")
    assert {key[0] for key in watched.found()} == {"yard"}
    again = watched.look([sighting(row, "gate") for row in tracks(3, 8, "tir")])
    assert [event["alert"] for event in again if event["modality"] == "tir"] == [True]


@pytest.mark.parametrize(
    "settings", [{"window": 7}, {"raise_at": 0.3}, {"clear_at": 0.0}, {"raise_at": 1.1}]
)
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(InputError, match="drift"):
        DriftConfig(**settings)


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_a_board_tells_temperatures_and_power(tmp_path):
    rails = "bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
    old = "bus/i2c/drivers/ina3221x/1-0041/iio:device0"
    write(tmp_path, {
        "class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "class/thermal/thermal_zone0/temp": "51468\n",
        "class/thermal/thermal_zone1/type": "gpu-thermal\n",
        "class/thermal/thermal_zone1/temp": "",  # switched off
        "class/thermal/thermal_zone2/type": "cpu-thermal\n",
        "class/thermal/thermal_zone2/temp": "-500\n",
        f"{rails}/in1_label": "VDD_IN\n", f"{rails}/in1_input": "5000\n",
        f"{rails}/curr1_input": "1200\n", f"{rails}/in4_label": "sum of shunt voltages\n",
        f"{old}/rail_name_0": "POM_5V_IN\n", f"{old}/in_power0_input": "4250\n",
    })  # fmt: skip
    assert temperatures_c(tmp_path) == {"cpu-thermal": 51.468, "cpu-thermal#2": -0.5}
    assert power_w(tmp_path) == {"VDD_IN": 6.0, "POM_5V_IN": 4.25}


def test_a_machine_without_these_tells_nothing(tmp_path):
    assert temperatures_c(tmp_path) == power_w(tmp_path) == {}


def test_drift_and_the_board_are_metrics(monkeypatch):
    watched = monitor(window=8)
    watched.look([sighting(row) for row in tracks(1, 8, "tir")])
    view = SimpleNamespace(drift=watched.found)
    families = {family.name: family for family in LiveCollector(view)._drift()}
    alerts = {s.labels["modality"]: s.value for s in families["mambapro_drift_alert"].samples}
    assert alerts["tir"] == 1
    assert set(alerts) == set(MODALITIES)
    monkeypatch.setattr(metrics, "temperatures_c", lambda: {"cpu-thermal": 51.5})
    monkeypatch.setattr(metrics, "power_w", lambda: {"VDD_IN": 6.0})
    samples = [s for family in metrics._board() for s in family.samples]
    assert [(s.labels, s.value) for s in samples] == [
        ({"zone": "cpu-thermal"}, 51.5), ({"rail": "VDD_IN"}, 6.0)
    ]  # fmt: skip


def test_visits_make_the_reference():
    """What calibration stores is of fused visits, as sightings are of fused crops."""
    rows = tracks(5, 40)
    labels = Labels(np.repeat(np.arange(20), 2), np.zeros(40, int), np.zeros(40, int))
    fused, _ = fuse_visits(rows, labels, "camera")
    reference = drift_reference(fused, ("rgb", "tir"))
    assert set(reference.quantiles) == {"rgb.share", "rgb.likeness", "tir.share", "tir.likeness"}
    places = reference.positions(fused)["rgb.share"]
    assert distance_from_even(places) < 0.1
