"""Match thresholds against counting, and what is refused."""

import numpy as np
import pytest

from calibration.match_rates import fuse_visits, pair_similarities, threshold_at_false_match_rate
from mambapro.cli import InputError
from mambapro.metrics import Labels


def similarities(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    genuine = np.clip(random.normal(0.7, 0.1, 500), -1, 1).astype(np.float32)
    impostor = np.clip(random.normal(0.3, 0.15, 2001), -1, 1).astype(np.float32)
    return genuine, impostor


@pytest.mark.parametrize("rate", [0.0005, 0.001, 0.01, 0.3])
def test_threshold_is_the_lowest_that_keeps_the_rate(rate):
    genuine, impostor = similarities()
    found = threshold_at_false_match_rate(genuine, impostor, rate)
    candidates = np.unique(impostor)
    kept = [t for t in candidates if np.mean(impostor >= t) <= rate]
    assert found.false_match_rate == np.mean(impostor >= np.float32(found.cosine)) <= rate
    assert found.cosine <= min(kept)
    just_below = candidates[candidates < np.float32(found.cosine)].max()
    assert np.mean(impostor >= just_below) > rate
    assert found.true_match_rate == np.mean(genuine >= np.float32(found.cosine))


def test_ties_at_the_threshold_are_all_refused():
    impostor = np.array([0.5] * 10 + [0.1] * 90, np.float32)
    found = threshold_at_false_match_rate(np.ones(1, np.float32), impostor, 0.05)
    assert found.cosine > 0.5
    assert found.false_match_rate == 0


def test_the_source_states_the_numbers():
    found = threshold_at_false_match_rate(*similarities(), 0.01, "test split")
    assert found.source == "test split: 500 genuine and 2001 impostor comparisons"


@pytest.mark.parametrize(
    ("genuine", "impostor", "rate", "message"),
    [
        (np.ones(3), np.zeros(99), 0.01, "needs 1 genuine and 100 impostor"),
        (np.ones(0), np.zeros(200), 0.01, "needs 1 genuine"),
        (np.ones(3), np.full(200, np.nan), 0.01, "finite"),
        (np.ones(3), np.zeros(200), 0.0, "between 0 and 1"),
        (np.ones(3), np.zeros(200), 1.0, "between 0 and 1"),
    ],
)
def test_what_cannot_be_answered_is_refused(genuine, impostor, rate, message):
    with pytest.raises(InputError, match=message):
        threshold_at_false_match_rate(genuine, impostor, rate)


def test_pairs_of_one_identity_by_one_camera_do_not_count():
    embeddings = np.eye(4, dtype=np.float32)
    embeddings[1] = embeddings[0]
    labels = Labels(
        identity=np.array([0, 0, 0, 1]), camera=np.array([0, 1, 0, 0]), scene=np.zeros(4, int)
    )
    genuine, impostor = pair_similarities(embeddings, embeddings, labels, labels, "camera")
    # 0-1 and 1-2, each seen from both ends; 0-2 are one camera's.
    np.testing.assert_array_equal(np.sort(genuine), [0, 0, 1, 1])
    np.testing.assert_array_equal(impostor, np.zeros(6))


@pytest.mark.parametrize("protocol", ["camera", "scene"])
def test_a_visit_is_the_mean_of_an_identity_at_a_place(protocol):
    place, elsewhere = np.array([0, 0, 1, 0]), np.zeros(4, int)
    labels = Labels(
        identity=np.array([5, 5, 5, 2]),
        camera=place if protocol == "camera" else elsewhere,
        scene=place if protocol == "scene" else elsewhere,
    )
    visits, of = fuse_visits(np.eye(4, dtype=np.float32), labels, protocol)
    half = np.sqrt(0.5)
    expected = {(5, 0): [half, half, 0, 0], (5, 1): [0, 0, 1, 0], (2, 0): [0, 0, 0, 1]}
    found = of.camera if protocol == "camera" else of.scene
    assert len(visits) == 3
    for visit, identity, where in zip(visits, of.identity, found, strict=True):
        np.testing.assert_allclose(visit, expected[identity, where], atol=1e-6)
