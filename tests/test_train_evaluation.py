import dataclasses
import itertools

import numpy as np
import pytest
import torch

from mambapro.config import DataConfig, ExperimentConfig, ModelConfig
from mambapro.contract import MODALITIES
from mambapro.datasets import read_dataset
from mambapro.metrics import Ranking
from mambapro.model.network import MambaPro
from tests.training_runs import write_dataset
from train.evaluation import ELSEWHERE, FUSED, SUBSETS, Evaluator, summary, table


@pytest.fixture
def evaluator(tmp_path, tiny: ModelConfig):
    write_dataset(tmp_path)
    config = ExperimentConfig(model=tiny, data=DataConfig(root=str(tmp_path)))
    return Evaluator(read_dataset("rgbnt201", tmp_path), config, torch.device("cpu"))


@pytest.fixture
def network(tiny: ModelConfig):
    torch.manual_seed(0)
    return MambaPro(tiny)


def test_subsets_are_every_choice_of_modalities():
    choices = [c for n in (1, 2, 3) for c in itertools.combinations(MODALITIES, n)]
    assert sorted(SUBSETS) == sorted(choices)
    assert FUSED == "rgb+nir+tir"


def test_every_subset_is_ranked_and_the_mode_restored(evaluator, network):
    network.train()
    rankings = evaluator.rank(network, SUBSETS)
    assert next(iter(rankings)) == FUSED
    assert len(rankings) == len(SUBSETS)
    assert network.training
    assert all(0 < r.minp <= r.map <= 1 for r in rankings.values())
    assert all(r.queries == len(evaluator.dataset.query) for r in rankings.values())


def test_a_subset_does_not_see_the_others(evaluator, network):
    def embed(subset):
        split = evaluator.dataset.query
        (embedded,) = evaluator._embed(network.eval(), evaluator.query, split, [subset])
        return embedded

    rgb, fused = embed(("rgb",)), embed(MODALITIES)
    evaluator.query.kept = evaluator.query.kept.copy()
    evaluator.query.kept[:, 1:] = 99
    np.testing.assert_array_equal(embed(("rgb",)), rgb)
    assert np.abs(embed(MODALITIES) - fused).max() > 1e-3


def test_an_unknown_camera_is_the_mean_row(evaluator, network):
    """The oracle: a network in which every camera's row is the mean of all rows."""
    with torch.no_grad():
        network.tower.cv_embed.normal_()  # rows that matter
    rankings = evaluator.rank_everything(network)
    assert list(rankings) == [*("+".join(subset) for subset in SUBSETS), ELSEWHERE]
    with torch.no_grad():
        network.tower.cv_embed.copy_(
            network.tower.cv_embed.mean(0).expand_as(network.tower.cv_embed)
        )
    expected = evaluator.rank(network)[FUSED]
    assert rankings[ELSEWHERE].map == pytest.approx(expected.map, abs=1e-6)
    assert rankings[ELSEWHERE].map != pytest.approx(rankings[FUSED].map, abs=1e-3)


def test_one_folder_for_query_and_gallery_is_embedded_once(evaluator):
    assert evaluator.gallery is evaluator.query
    other = dataclasses.replace(evaluator.dataset, gallery=evaluator.dataset.train)
    config = ExperimentConfig(model=ModelConfig(image_size=(32, 16), patch_size=8, cameras=3))
    assert Evaluator(other, config, torch.device("cpu")).gallery is not evaluator.query


def test_table_and_summary_say_the_same():
    ranking = Ranking(map=0.5, minp=0.25, cmc=np.linspace(0.1, 1, 10), queries=7)
    rgb = dataclasses.replace(ranking, map=0.125)
    elsewhere = dataclasses.replace(ranking, map=0.375)
    rankings = {FUSED: ranking, "rgb": rgb, "nir": ranking, ELSEWHERE: elsewhere}
    result = summary(rankings)
    assert result["subsets"] == {FUSED: 0.5, "rgb": 0.125, "nir": 0.5}
    assert (result["map"], result["r1"], result["r10"]) == (0.5, pytest.approx(0.1), 1)
    assert (result["incomplete_map"], result["unknown_camera_map"]) == (0.3125, 0.375)
    header, *lines = table(rankings).splitlines()
    assert header.split() == ["modalities", "mAP", "R-1", "R-5", "R-10", "mINP"]
    assert lines[0].split() == [FUSED, "50.0", "10.0", "50.0", "100.0", "25.0"]
    assert lines[1].split()[:2] == ["rgb", "12.5"]
    assert lines[-1].startswith("rgb+nir+tir, camera unknown   37.5")
    assert len({line.index(".") for line in lines}) == 1  # columns stand below each other
