"""train/visualize.py on a trained network, and the maths behind its pictures."""

import dataclasses
import json
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mambapro.cli import run
from mambapro.config import ModelConfig
from mambapro.contract import EXIT_BAD_INPUT, EXIT_DONE
from mambapro.metrics import evaluate, squared_distances
from mambapro.model.network import MambaPro, normalise
from mambapro.model.weights import load_checkpoint
from tests.training_runs import write_config, write_dataset
from train import main as training
from train import visualize
from train.data.sources import open_dataset
from train.inspection.choice import choose, rank_lists
from train.inspection.relevance import METHODS, relevance, similarity, watched
from train.inspection.scatter_figure import chosen_rows, in_the_plane
from train.inspection.similarity_figure import found_at, pair_cosines
from train.inspection.views import AFTER, BEFORE, Views, view

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, trained for a moment."""
    folder = tmp_path_factory.mktemp("visualize")
    write_dataset(folder, test=4)
    config = write_config(folder / "tiny.yaml", folder)
    command = ["--config", str(config), "--output", str(folder), "--set", "model.centred=true"]
    assert run(training.main, command) == EXIT_DONE
    return folder


@pytest.fixture(scope="module")
def views(folder) -> Views:
    checkpoint = load_checkpoint(folder / "best.pt")
    return view(checkpoint, open_dataset(checkpoint.config), CPU)


@pytest.fixture(scope="module")
def unsure(views) -> Views:
    """The same triplets with features that are mostly noise."""
    random = np.random.default_rng(0)
    features = views.query.features[AFTER] + 0.3 * random.standard_normal((16, 48))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    query = dataclasses.replace(views.query, features={AFTER: features})
    return dataclasses.replace(views, query=query, gallery=query)


class Sources(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name == "src"]


# --- the command ----------------------------------------------------------------------------------


def test_pictures_and_a_page_that_shows_them(folder, tmp_path, capsys):
    output = tmp_path / "a" / "figures"
    command = ["--checkpoint", str(folder / "best.pt"), "--output", str(output), "--json"]
    assert run(visualize.main, [*command, "--queries", "3"]) == EXIT_DONE
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    trained = json.loads((folder / "metrics.json").read_text())
    assert result["rankings"][AFTER]["map"] == pytest.approx(trained["map"], abs=1e-6)
    page = Sources()
    page.feed((output / "index.html").read_text())
    assert sorted(page.found) == sorted(result["figures"].values())
    assert len(page.found) == 4
    for file in page.found:
        picture = cv2.imread(str(output / file))
        assert picture.std() > 5, f"{file} is blank"


def test_a_network_without_aggregation_has_no_after(folder, tmp_path, capsys):
    config, output = write_config(tmp_path / "plain.yaml", folder), tmp_path / "run"
    command = ["--config", str(config), "--output", str(output)]
    settings = ("model.ma=false", "model.direct=false", "model.centred=true", "train.epochs=1")
    changes = [part for setting in settings for part in ("--set", setting)]
    assert run(training.main, [*command, *changes]) == EXIT_DONE
    capsys.readouterr()
    command = ["--checkpoint", str(output / "best.pt"), "--json", "--method", "grad-cam"]
    assert run(visualize.main, command) == EXIT_DONE
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    trained = json.loads((output / "metrics.json").read_text())
    assert list(result["rankings"]) == [BEFORE]
    assert result["rankings"][BEFORE]["map"] == pytest.approx(trained["map"], abs=1e-6)
    assert (output / "figures" / "features.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "nothing.pt"], "no checkpoint nothing.pt; train one"),
        (["--set", "train.epochs=3"], "data.*, got train.epochs=3"),
        (["--set", "data.root=nowhere"], "nowhere"),
        (["--set", "data.rot=nowhere"], "data.root"),
        (["--output", "{checkpoint}"], "best.pt"),
    ],
)
def test_bad_input(folder, capsys, arguments, message):
    checkpoint = str(folder / "best.pt")
    arguments = [argument.format(checkpoint=checkpoint) for argument in arguments]
    assert run(visualize.main, ["--checkpoint", checkpoint, *arguments]) == EXIT_BAD_INPUT
    assert message in capsys.readouterr().err


def test_counts_are_at_least_one(capsys):
    with pytest.raises(SystemExit):
        visualize.main(["--queries", "0"])
    assert "at least 1, got '0'" in capsys.readouterr().err


def test_features_are_those_that_are_exported(folder, views):
    checkpoint = load_checkpoint(folder / "best.pt")
    network, mean = checkpoint.network, checkpoint.heads["tokens.bottleneck.running_mean"]
    images, camera = torch.from_numpy(views.query.pictures.kept), views.query.split.labels().camera
    with torch.no_grad():
        expected = network.embed(images, torch.ones(16, 3), torch.from_numpy(camera))
        pixels = normalise(images, torch.ones(16, 3))
        tokens = network(pixels, torch.from_numpy(camera)).class_tokens  # (M, B, C)
    before = F.normalize(tokens.transpose(0, 1).flatten(1) - mean, dim=1)
    np.testing.assert_allclose(views.query.features[AFTER], expected.numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(views.query.features[BEFORE], before.numpy(), rtol=0, atol=1e-5)


# --- maps -----------------------------------------------------------------------------------------


@pytest.fixture
def inputs(tiny: ModelConfig):
    """A network of large weights, triplets, and what they are compared to."""
    torch.manual_seed(0)
    network = MambaPro(dataclasses.replace(tiny, centred=True)).eval()
    with torch.no_grad():
        network.centre.normal_(std=0.1)
    images = torch.randint(0, 256, (4, 3, 32, 16, 3), dtype=torch.uint8)
    return network, images, torch.tensor([0, 1, 2, -1]), torch.randn(4, 48)


def test_integrated_gradients_add_up_to_the_cosine(inputs):
    """Completeness, the axiom of the method: against a triplet without modalities."""
    network, images, camera, wanted = inputs
    added = relevance(network, images, camera, wanted, "integrated-gradients")
    assert added.shape == (4, 3, 4, 2)
    with torch.no_grad():
        ends = [network.embed(images, torch.full((4, 3), m), camera) for m in (1.0, 0.0)]
        present, absent = (F.cosine_similarity(end, wanted) for end in ends)
    torch.testing.assert_close(added.sum((1, 2, 3)), present - absent, rtol=0, atol=0.005)
    assert (present - absent).abs().max() > 0.05


def test_grad_cam_is_the_sum_of_channels_times_their_mean_gradient(inputs):
    network, images, camera, wanted = inputs
    found = relevance(network, images, camera, wanted, "grad-cam")
    pixels = (images.permute(0, 1, 4, 2, 3) / 255 - 0.5) / 0.5
    kept = {}
    with watched(network) as maps:
        maps.register_forward_hook(lambda _, __, output: kept.update(maps=output))
        cosine = similarity(network)(pixels, camera, wanted).sum()
    (gradient,) = torch.autograd.grad(cosine, kept["maps"])
    expected = (kept["maps"] * gradient.mean((2, 3), keepdim=True)).sum(1)  # (M*B, gh, gw)
    torch.testing.assert_close(found.transpose(0, 1).flatten(0, 1), expected)


@pytest.mark.parametrize("method", METHODS)
def test_the_network_is_left_as_it_was(inputs, method):
    network, images, camera, wanted = inputs
    blocks, mask = list(network.tower.blocks), torch.ones(4, 3)
    with torch.no_grad():
        before = network.embed(images, mask, camera)
    relevance(network, images, camera, wanted, method)
    with torch.no_grad():
        assert torch.equal(network.embed(images, mask, camera), before)
    assert list(network.tower.blocks) == blocks
    assert all(parameter.grad is None for parameter in network.parameters())


def test_watching_changes_nothing(inputs):
    network, images, camera, _ = inputs
    with torch.no_grad():
        expected = network.embed(images, torch.ones(4, 3), camera)
        with watched(network):
            found = network.embed(images, torch.ones(4, 3), camera)
    torch.testing.assert_close(found, expected)


# --- lists, pairs and places ----------------------------------------------------------------------


def test_lists_score_as_the_metrics_do(unsure):
    views = unsure
    labels = views.query.split.labels()
    features = views.query.features[AFTER]
    expected = evaluate(squared_distances(features, features), labels, labels, "camera").map
    lists = rank_lists(views)
    assert len(lists) == len(views.query)
    assert 0.2 < expected < 0.9
    assert np.mean([ranked.average_precision for ranked in lists]) == pytest.approx(expected)
    for ranked in lists:
        same = labels.identity[ranked.hits] == labels.identity[ranked.query]
        np.testing.assert_array_equal(ranked.right, same)
        assert not (same & (labels.camera[ranked.hits] == labels.camera[ranked.query])).any()
        assert (np.diff(ranked.cosines) <= 0).all()
        assert ranked.right[list(ranked.hits).index(ranked.first_right)]


def test_queries_are_chosen_from_the_worst_to_the_best(unsure):
    everything = [ranked.average_precision for ranked in rank_lists(unsure)]
    chosen = [ranked.average_precision for ranked in choose(unsure, 4)]
    assert chosen == sorted(chosen)
    assert (chosen[0], chosen[-1]) == (min(everything), max(everything))
    assert min(everything) < max(everything)
    assert len(choose(unsure, 999)) == len(everything)


def test_pairs_are_counted_once(views):
    """4 identities of 2 triplets at each of 2 cameras; pairs at one camera do not count."""
    positive, negative = pair_cosines(views, AFTER)
    assert len(positive) == 4 * 2 * 2
    assert len(negative) == 16 * 12 / 2


def test_the_threshold_lets_its_share_through():
    negative = np.linspace(-1, 0.5, 1001)
    threshold, found = found_at(np.array([0.4, 0.49, 0.6, 0.9]), negative, 0.01)
    assert (negative > threshold).mean() == pytest.approx(0.01, abs=1e-3)
    assert found == 0.75


def test_chosen_identities_come_with_all_their_rows(views):
    labels, rows = chosen_rows(views, 2, seed=1)
    everyone = views.query.split.labels().identity
    assert len(np.unique(labels)) == 2
    np.testing.assert_array_equal(rows, np.flatnonzero(np.isin(everyone, labels)))


def test_the_plane_keeps_groups_together():
    random = np.random.default_rng(0)
    centres = np.repeat(np.eye(3, 16), 8, axis=0)
    features = centres + 0.05 * random.standard_normal(centres.shape)
    places = in_the_plane(features.astype(np.float32), seed=0)
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    np.testing.assert_array_equal(distances.argmin(1) // 8, np.arange(24) // 8)
