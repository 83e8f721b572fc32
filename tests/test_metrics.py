import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.straightforward import evaluate_by_matrix, score
from mambapro import metrics
from mambapro.cli import InputError
from mambapro.metrics import Labels, evaluate, evaluate_embeddings, squared_distances
from mambapro.reranking import rerank

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = {
    "score": 1e-7,  # their CMC is float32
    "map": 1e-15,  # their mAP is float64: the last digit
    "rerank": 1e-6,  # float32 distances added up in another order
}


@pytest.fixture(scope="module")
def golden():
    expected = json.loads((GOLDEN / "reference_metrics.json").read_text())
    data = np.load(GOLDEN / "reference_metrics_input.npz")
    labels = Labels(data["identity"], data["camera"], data["scene"])
    query = data["query_index"]
    gallery = np.setdiff1d(np.arange(len(labels)), query)
    features = data["features"]
    return {
        "expected": expected,
        "features": (features[query], features[gallery]),
        "labels": (labels.take(query), labels.take(gallery)),
    }


@pytest.mark.parametrize(("protocol", "key"), [("camera", "market1501"), ("scene", "msvr310")])
def test_published_scores(golden, protocol, key):
    distances = squared_distances(*golden["features"])
    ranking = evaluate(distances, *golden["labels"], protocol)
    expected = golden["expected"][key]
    assert ranking.map == pytest.approx(expected["mAP"], abs=TOLERANCE["map"])
    np.testing.assert_allclose(ranking.cmc[:20], expected["cmc"], atol=TOLERANCE["score"])
    assert_same(evaluate_embeddings(golden["features"], *golden["labels"], protocol), ranking)


def assert_same(ranking, expected):
    assert ranking.queries == expected.queries
    assert ranking.map == pytest.approx(expected.map, abs=TOLERANCE["map"])
    assert ranking.minp == pytest.approx(expected.minp, abs=TOLERANCE["map"])
    np.testing.assert_array_equal(ranking.cmc, expected.cmc)


def random_labels(random, size):
    return Labels(*(random.integers(0, most, size) for most in (15, 3, 2)))


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_lists_full_of_ties_score_as_when_they_are_sorted(levels):
    random = np.random.default_rng(levels)
    query, gallery = random_labels(random, 40), random_labels(random, 90)
    distances = random.integers(0, levels, (40, 90)).astype(np.float32)
    distances[:, ::7] = np.inf
    expected = score(np.argsort(distances, axis=1, kind="stable"), (query, gallery), ranks=50)
    assert_same(evaluate(distances, query, gallery, "camera"), expected)


def test_blocks_of_embeddings_score_as_one_matrix(monkeypatch):
    monkeypatch.setattr(metrics, "BLOCK_VALUES", 7 * 90)
    random = np.random.default_rng(0)
    labels = random_labels(random, 40), random_labels(random, 90)
    embeddings = random.standard_normal((40, 8)), random.standard_normal((90, 8))
    ranking = evaluate_embeddings(embeddings, *labels, "camera")
    assert_same(ranking, evaluate_by_matrix(*embeddings, labels))


def test_distances_that_are_not_numbers_are_refused():
    with pytest.raises(InputError, match="NaN"):
        evaluate(np.array([[np.nan, 0.1]]), labels([5]), labels([5, 5], camera=[1, 1]), "camera")


def test_published_reranking(golden):
    distances = rerank(*golden["features"], k1=20, k2=6, weight=0.3)
    expected = golden["expected"]["rerank_k1_20_k2_6_lambda_0_3"]
    head = np.array(expected["distance_head"])
    np.testing.assert_allclose(
        distances[: head.shape[0], : head.shape[1]], head, atol=TOLERANCE["rerank"]
    )
    ranking = evaluate(distances, *golden["labels"], "camera")
    assert ranking.map == pytest.approx(expected["mAP"], abs=TOLERANCE["map"])
    np.testing.assert_allclose(ranking.cmc[:20], expected["cmc"], atol=TOLERANCE["score"])


def labels(identity, camera=None, scene=None):
    zeros = [0] * len(identity)
    return Labels(*(np.array(v) for v in (identity, camera or zeros, scene or zeros)))


def test_scores_of_a_list_ranked_by_hand():
    # Ranks of the matches: 1 and 4 of four; precision 1 and 2/4.
    distances = np.array([[0.1, 0.2, 0.3, 0.4]])
    ranking = evaluate(distances, labels([5]), labels([5, 1, 2, 5], camera=[1] * 4), "camera")
    assert ranking.map == pytest.approx(0.75)
    assert ranking.minp == pytest.approx(2 / 4)
    assert ranking.rank(1) == 1
    assert ranking.rank(100) == 1


def test_entries_of_the_same_camera_or_scene_leave_the_list():
    distances = np.array([[0.1, 0.2, 0.3]])
    query = labels([5], camera=[0], scene=[0])
    gallery = labels([5, 1, 5], camera=[0, 0, 1], scene=[1, 0, 0])
    by_camera = evaluate(distances, query, gallery, "camera")
    assert (by_camera.map, by_camera.rank(1), by_camera.rank(2)) == (0.5, 0, 1)
    assert evaluate(distances, query, gallery, "scene").map == 1


def test_queries_without_a_match_do_not_count():
    distances = np.array([[0.1, 0.2], [0.2, 0.1]])
    ranking = evaluate(distances, labels([5, 9]), labels([5, 1], camera=[1, 1]), "camera")
    assert (ranking.queries, ranking.map) == (1, 1)
    with pytest.raises(InputError, match="none of the 1 queries"):
        evaluate(distances[:1], labels([9]), labels([5, 1]), "camera")


def test_ties_keep_the_order_of_the_gallery():
    ranking = evaluate(np.zeros((1, 3)), labels([5]), labels([1, 5, 2], camera=[1] * 3), "camera")
    assert ranking.rank(1) == 0
    assert ranking.rank(2) == 1


def test_distances_are_of_unit_vectors():
    distances = squared_distances(np.array([[3.0, 0.0]]), np.array([[0.0, 2.0], [5.0, 0.0]]))
    np.testing.assert_allclose(distances, [[2, 0]], atol=1e-12)


def test_parity_of_equal_and_of_changed_embeddings():
    random = np.random.default_rng(0)
    query, gallery = random.standard_normal((4, 8)), random.standard_normal((30, 8))
    same = metrics.parity((query, gallery), (2 * query, gallery))
    assert same.cosine_min == pytest.approx(1)
    assert same.overlap_at_10 == 1
    other = metrics.parity((query, gallery), (query, gallery[::-1]))
    assert other.cosine_min < 0.5
    assert other.overlap_at_10 < 1


def test_overlap_counts_only_entries_that_count():
    first, second = np.array([[0.0, 1, 2, 3]]), np.array([[3.0, 1, 2, 0]])
    assert metrics.rank_overlap(first, second, k=2) == 0.5
    dropped = np.array([[True, False, False, True]])
    assert metrics.rank_overlap(first, second, dropped, k=2) == 1


def test_overlap_of_a_short_gallery_is_over_what_there_is():
    assert metrics.rank_overlap(np.zeros((2, 3)), np.ones((2, 3)), k=10) == 1


def test_embeddings_of_different_shape_cannot_be_compared():
    with pytest.raises(InputError, match="different shapes"):
        metrics.paired_cosines(np.zeros((2, 3)), np.zeros((2, 4)))


def unit_rows(rows, columns=8):
    values = np.random.default_rng(1).standard_normal((rows, columns))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_sound_embeddings_have_no_degeneracy():
    assert metrics.degeneracies(unit_rows(5)) == []
    assert metrics.degeneracies(unit_rows(1)) == []
    assert metrics.degeneracies(unit_rows(5).astype(np.float16)) == []


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (lambda e: e * np.array([[np.nan], [1], [1]]), "1 of 3 embeddings hold NaN"),
        (lambda e: e * np.array([[0], [1], [1]]), "1 of 3 embeddings are not of unit length"),
        (lambda e: e[[0, 0, 0]], "all 3 embeddings are alike"),
    ],
)
def test_degenerate_embeddings_are_named(spoil, name):
    (found,) = metrics.degeneracies(spoil(unit_rows(3)))
    assert name in found
