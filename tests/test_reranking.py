import numpy as np
import pytest

from benchmarks.straightforward import rerank_by_matrix
from mambapro import metrics, reranking
from mambapro.cli import InputError
from mambapro.reranking import rerank
from tests.tolerances import HALF_STEP


def clustered(rows, channels=24, clusters=12, seed=0):
    random = np.random.default_rng(seed)
    centres = random.standard_normal((clusters, channels))
    which = random.integers(0, clusters, rows)
    return (centres[which] + 0.6 * random.standard_normal((rows, channels))).astype(np.float32)


@pytest.fixture
def blocks_of_seven_rows(monkeypatch):
    """Blocks and chunks end in the middle of everything."""
    monkeypatch.setattr(metrics, "BLOCK_VALUES", 7 * 160)
    monkeypatch.setattr(reranking, "_CHUNK", 97)


@pytest.mark.parametrize(("k1", "k2"), [(20, 6), (5, 1), (7, 3), (300, 4)])
def test_blocks_give_what_matrices_give(blocks_of_seven_rows, k1, k2):
    features = clustered(160)
    query, gallery = features[:33], features[33:]
    ours = rerank(query, gallery, k1, k2, 0.3)
    np.testing.assert_allclose(ours, rerank_by_matrix(query, gallery, k1, k2, 0.3), atol=HALF_STEP)


def test_neighbours_are_those_of_a_stable_sort():
    distances = np.random.default_rng(0).integers(0, 4, (50, 40)).astype(np.float32)
    expected = np.argsort(distances, axis=1, kind="stable")
    for count in (1, 7, 40):
        np.testing.assert_array_equal(reranking._first(distances, count), expected[:, :count])


def test_rows_that_are_all_alike_keep_their_distance():
    ours = rerank(np.ones((3, 4)), np.ones((40, 4)))
    assert ours.shape == (3, 40)
    assert np.isfinite(ours).all()


def test_embeddings_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match="NaN or infinity"):
        rerank(np.full((1, 4), np.nan), np.ones((5, 4)))
