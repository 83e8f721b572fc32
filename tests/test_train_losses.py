import pytest
import torch
import torch.nn.functional as F

from mambapro.config import TrainConfig
from train.losses import pair_losses, pairwise_distances, total_loss, triplet


def test_distances_against_torch():
    features = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        pairwise_distances(features).fill_diagonal_(0), torch.cdist(features, features)
    )


def test_triplet_takes_the_hardest_of_both_kinds():
    features = torch.tensor([[0.0], [3.0], [4.0], [9.0]])
    # Farthest of the own label: 3, 3, 5, 5; nearest of the other: 4, 1, 1, 6.
    expected = F.softplus(torch.tensor([3.0 - 4, 3 - 1, 5 - 1, 5 - 6])).mean()
    torch.testing.assert_close(triplet(features, torch.tensor([0, 0, 1, 1])), expected)


def test_a_label_that_is_there_once_is_no_distance_from_itself():
    features = torch.tensor([[1000.0, 0.1], [0.0, 0.0]], requires_grad=True)
    loss = triplet(features, torch.tensor([0, 1]))
    loss.backward()
    expected = F.softplus(-torch.tensor([1000.0, 0.1]).norm())
    torch.testing.assert_close(loss, expected)
    assert features.grad.abs().max() < 1e-6


def test_triplet_of_one_identity_is_zero_and_so_is_its_gradient():
    features = torch.randn(4, 3, requires_grad=True)
    loss = triplet(features, torch.zeros(4, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert features.grad is not None
    assert not features.grad.any()


def test_equal_features_give_a_finite_gradient():
    features = torch.ones(4, 3, requires_grad=True)
    triplet(features, torch.tensor([0, 0, 1, 1])).backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_total_is_the_weighted_sum_over_pairs():
    random = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 0, 1, 1])
    pairs = [
        (torch.randn(4, 2, generator=random), torch.randn(4, 3, generator=random)) for _ in range(2)
    ]
    config = TrainConfig(identity_weight=0.25, triplet_weight=2, label_smoothing=0.1)
    expected = sum(0.25 * i + 2 * t for i, t in pair_losses(pairs, labels, 0.1))
    assert total_loss(pairs, labels, config).item() == pytest.approx(float(expected))
