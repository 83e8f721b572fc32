"""Ranges of activations, held against numpy on values that are known."""

import dataclasses

import numpy as np
import onnx
import pytest

from calibration.cache import Cache, Wanted, activations_of, read_cache, write_cache
from calibration.ranges import BINS, Histogram, Tap, observe, ranges
from mambapro.cli import InputError
from tests.conftest import TINY
from tests.export_samples import exported, one_thread, triplets  # noqa: F401

PIXELS = Tap("_unsafe_view")
"""Input of the patch convolution: normalised pixels, rows of rgb, then nir, then tir."""


def batches(count=6):
    images, mask, camera = triplets(count)
    return [(images[i : i + 1], mask[i : i + 1], camera[i : i + 1]) for i in range(count)]


def histogram(*values):
    """Return the histogram of one array of values for each modality."""
    arrays = [np.asarray(v, np.float32) for v in values]
    reach = max(np.abs(a).max() for a in arrays)
    counts = [np.histogram(a, BINS, (-reach, reach))[0] for a in arrays]
    return Histogram(
        np.array([min(a.min(), 0) for a in arrays], np.float32),
        np.array([max(a.max(), 0) for a in arrays], np.float32),
        np.array(counts),
    )


def test_observed_values_are_the_models(monkeypatch):
    model, shown = onnx.load(exported()[0].path), batches()
    found = observe(model, [PIXELS], shown)[PIXELS.name]
    for slot in range(3):
        pixels = np.concatenate(
            [((i[0, slot] / 255 - 0.5) / 0.5 * m[0, slot]).ravel() for i, m, _ in shown]
        )
        assert found.counts[slot].sum() == pixels.size
        np.testing.assert_allclose(found.lowest[slot], pixels.min(), atol=1e-6)
        np.testing.assert_allclose(found.highest[slot], pixels.max(), atol=1e-6)
        for percent in (90, 99):
            beyond = (100 - percent) / 2
            expected = np.percentile(pixels, (beyond, 100 - beyond))
            np.testing.assert_allclose(
                found.quantiles(slot, percent), expected, atol=2.1 * 2 / BINS + 2 / 255
            )


def test_a_tap_of_one_modality_fills_its_row_alone():
    model = onnx.load(exported()[0].path)
    node = next(n for n in model.graph.node if n.name == "aggregation.units.0.in_proj.1.MatMul")
    found = observe(model, [Tap(node.input[0], "nir")], batches(2))[node.input[0]]
    assert found.seen == [1]
    patches = (TINY.image_size[0] // TINY.patch_size) * (TINY.image_size[1] // TINY.patch_size)
    assert found.counts.sum() == 2 * patches * TINY.output_dim


def test_max_takes_all_and_percentile_clips_outliers():
    random = np.random.default_rng(0)
    calm = random.normal(0, 1, 100_000)
    wild = np.append(calm, [80.0, -60.0])
    found = {"x": histogram(calm, wild, calm)}
    assert ranges(found, "max", 100)["x"] == pytest.approx((-60, 80))
    low, high = ranges(found, "percentile", 99.9)["x"]
    expected = np.percentile(wild, (0.05, 99.95))
    np.testing.assert_allclose((low, high), expected, atol=2 * 160 / BINS)
    np.testing.assert_allclose(found["x"].clipped((low, high))[1], 1e-3, atol=5e-4)
    assert (found["x"].clipped((-60.0, 80.0)) == 0).all()


def test_the_modality_that_reaches_furthest_sets_the_range():
    random = np.random.default_rng(0)
    calm, hot = random.normal(0, 1, 100_000), random.normal(0, 9, 500)
    low, high = ranges({"x": histogram(calm, calm, hot)}, "percentile", 99)["x"]
    # pooled, the few values of the hot modality would be cut off at 3
    np.testing.assert_allclose((low, high), np.percentile(hot, (0.5, 99.5)), rtol=0.1)


def test_entropy_leaves_far_outliers_out():
    random = np.random.default_rng(0)
    wild = np.append(random.normal(0, 1, 50_000), [40.0])
    low, high = ranges({"x": histogram(wild, wild, wild)}, "entropy", 100)["x"]
    assert 2 < high < 20
    assert -20 < low < -2


def test_zero_is_always_inside():
    found = {"x": histogram([3.0, 4.0], [3.5, 5.0], [3.0, 3.1])}
    low, high = ranges(found, "max", 100)["x"]
    assert low == 0
    assert high == pytest.approx(5)


def test_an_activation_that_never_changes_is_refused():
    with pytest.raises(InputError, match="x is 0"):
        ranges({"x": Histogram(*np.zeros((2, 3), np.float32), np.ones((3, BINS), int))}, "max", 100)


def test_nan_is_refused():
    model = onnx.load(exported()[0].path)
    (weight,) = (w for w in model.graph.initializer if w.name == "tower.conv1.weight")
    bad = np.full(tuple(weight.dims), np.nan, np.float32)
    weight.CopyFrom(onnx.numpy_helper.from_array(bad, weight.name))
    with pytest.raises(InputError, match="NaN or infinity"):
        observe(model, [Tap("conv2d")], batches(1))


WANTED = Wanted("w", "l", "max", 100.0)


def cache(**changes):
    found = {"x": histogram([1.0, -2.0], [0.5, 0.1], [0.0, 3.0])}
    activations = activations_of(found, ranges(found, "max", 100), 1)
    facts = {"made_for": WANTED, "activations": activations, "manifest": {"images": []}}
    return Cache(**facts | changes)


def test_cache_round_trip(tmp_path):
    write_cache(tmp_path / "c.json", cache())
    back = read_cache(tmp_path / "c.json")
    assert back == cache()
    assert back.ranges["x"] == pytest.approx((-2, 3))
    assert back.activations["x"].values == 6


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"weights_hash": "v"}, "another model"),
        ({"list_hash": "k"}, "another list"),
        ({"method": "entropy"}, "method max"),
    ],
)
def test_a_cache_of_something_else_is_found_out(change, reason):
    cache().check(WANTED, ["x"])
    with pytest.raises(InputError, match=reason):
        cache().check(dataclasses.replace(WANTED, **change), ["x"])
    with pytest.raises(InputError, match="other activations"):
        cache().check(WANTED, ["x", "y"])


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "{"])
def test_an_empty_or_damaged_cache_is_refused(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(InputError, match="empty or damaged"):
        read_cache(tmp_path / "c.json")


def test_a_cache_without_ranges_or_of_another_version_is_refused(tmp_path):
    write_cache(tmp_path / "c.json", cache(activations={}))
    with pytest.raises(InputError, match="holds no ranges"):
        read_cache(tmp_path / "c.json")
    write_cache(tmp_path / "c.json", cache(format_version=9))
    with pytest.raises(InputError, match="format version 9"):
        read_cache(tmp_path / "c.json")
