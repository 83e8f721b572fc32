"""The network against the authors' implementation, and its switches."""

import dataclasses

import numpy as np
import pytest
import torch

from mambapro.config import ModelConfig
from mambapro.model.folding import fold
from mambapro.model.names import authors_network_names
from mambapro.model.network import Heads, MambaPro, normalise, parameter_groups
from mambapro.model.weights import load_authors
from tests import golden
from tests.tolerances import FOLDING, GOLDEN_FEATURE

FULL = ModelConfig()  # RGBNT201, full size
CAMERAS = torch.tensor([0, 3])


def golden_network(**switches) -> MambaPro:
    network = MambaPro(dataclasses.replace(FULL, **switches)).eval()
    load_authors(network, golden.authors_state(), "golden")
    return network


@pytest.fixture(scope="module")
def reference():
    return np.load(golden.FOLDER / "reference_features.npz")


@pytest.fixture(scope="module")
def full() -> MambaPro:
    return golden_network()


def close(actual: torch.Tensor, expected: np.ndarray):
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=0, atol=GOLDEN_FEATURE)


@torch.no_grad()
def test_golden_features_and_intermediates(full, reference):
    seen = {}
    hooks = [
        full.tower.register_forward_hook(lambda *a: seen.update(tokens=a[-1])),
        full.aggregation.units[0].register_forward_hook(lambda *a: seen.update(intra=a[-1])),
        full.aggregation.units[1].register_forward_hook(lambda *a: seen.update(inter=a[-1])),
    ]
    features = full(golden.pixels("rgbnt201", 2), CAMERAS)
    for hook in hooks:
        hook.remove()
    rgb, nir, tir = 0, 1, 2
    close(features.embedding(), reference["rgbnt201"])
    close(seen["tokens"][rgb, :, :4], reference["rgbnt201.rgb_tokens_head"])
    close(seen["tokens"][rgb].mean(-1), reference["rgbnt201.rgb_tokens_mean"])
    close(seen["intra"][rgb, :, :2], reference["rgbnt201.intra0_rgb_head"])
    close(seen["intra"][tir].mean(-1), reference["rgbnt201.intra0_tir_mean"])
    close(seen["inter"][nir, :, :2], reference["rgbnt201.inter0_nir_head"])


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "switch"), [("no_mamba", "ma"), ("no_prompt", "srp"), ("no_adapter", "pfa")]
)
def test_golden_ablations(reference, name, switch):
    network = golden_network(**{switch: False})
    close(network(golden.pixels("rgbnt201", 2), CAMERAS).embedding(), reference[name])


def test_golden_trainable_names(full):
    facts = golden.read_json("reference_state_dict.json")["keys"]
    heads = ("classifier", "bottleneck", "BACKBONE.classifier", "BACKBONE.bottleneck")
    expected = {n for n, f in facts.items() if f.get("trainable") and not n.startswith(heads)}
    trained = set()
    for name, parameter in full.named_parameters():
        if parameter.requires_grad:
            theirs = authors_network_names(name)
            trained.update([theirs] if isinstance(theirs, str) else theirs)
    assert trained == expected


def test_every_tensor_of_the_authors_network_has_a_place(full):
    facts = golden.read_json("reference_state_dict.json")["keys"]
    ours = []
    for name in full.state_dict():
        theirs = authors_network_names(name)
        ours += [theirs] if isinstance(theirs, str) else theirs
    heads = {n for n in facts if "classifier" in n or "bottleneck" in n}
    assert sorted(ours) == sorted(set(facts) - heads)


def test_parameter_counts_are_the_papers(full):
    counts = {part: round(count / 1e6, 2) for part, count in parameter_groups(full).items()}
    assert counts["PFA"] == 28.34
    assert counts["SRP"] == 28.48
    assert counts["MA"] == 17.36


def random_batch(config: ModelConfig, batch: int, seed: int = 0):
    random = np.random.default_rng(seed)
    images = torch.from_numpy(random.integers(0, 256, (batch, 3, *config.image_size, 3), np.uint8))
    camera = torch.from_numpy(random.integers(-1, config.cameras, batch))
    return images, torch.ones(batch, 3), camera


def lively(network: MambaPro) -> MambaPro:
    """Move every parameter and statistic off its initial value, so that none is a no-op."""
    generator = torch.Generator().manual_seed(3)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator) * 0.1
            tensor += noise.abs() if "running_var" in name else noise
    return network.eval()


SWITCHES = [
    {},
    {"pfa": False},
    {"srp": False},
    {"ma": False},
    {"sie": False},
    {"bidirectional": True},
    {"centred": True},
    {"pfa": False, "srp": False, "ma": False, "sie": False},
]


@torch.no_grad()
@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_folding_changes_nothing(tiny, switches):
    network = lively(MambaPro(dataclasses.replace(tiny, **switches)))
    folded = fold(network)
    batch = random_batch(tiny, 3)
    torch.testing.assert_close(folded.embed(*batch), network.embed(*batch), rtol=0, atol=FOLDING)


@torch.no_grad()
def test_folding_full_size_removes_the_constant_transfers(full):
    folded = fold(full)
    count = sum(p.numel() for p in full.parameters()) - sum(p.numel() for p in folded.parameters())
    assert count > 21e6
    pixels = golden.pixels("rgbnt201", 2)
    a, b = folded(pixels, CAMERAS).embedding(), full(pixels, CAMERAS).embedding()
    unit = torch.nn.functional.normalize
    torch.testing.assert_close(unit(a, dim=-1), unit(b, dim=-1), rtol=0, atol=FOLDING)


@torch.no_grad()
@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_embedding_is_unit_length_and_batch_independent(tiny, switches):
    network = lively(MambaPro(dataclasses.replace(tiny, **switches)))
    images, mask, camera = random_batch(tiny, 4)
    whole = network.embed(images, mask, camera)
    assert whole.shape == (4, tiny.embedding_dim)
    torch.testing.assert_close(whole.norm(dim=-1), torch.ones(4))
    alone = torch.cat(
        [network.embed(images[i : i + 1], mask[:1], camera[i : i + 1]) for i in range(4)]
    )
    torch.testing.assert_close(alone, whole, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("switch", ["pfa", "srp", "ma", "sie"])
def test_each_switch_changes_the_embedding(tiny, switch):
    on = lively(MambaPro(tiny))
    off = MambaPro(dataclasses.replace(tiny, **{switch: False})).eval()
    shared = {n: v for n, v in on.state_dict().items() if n in off.state_dict()}
    off.load_state_dict(shared)
    batch = random_batch(tiny, 2)
    assert (on.embed(*batch) - off.embed(*batch)).abs().max() > 1e-3


@torch.no_grad()
def test_a_masked_modality_is_not_seen(tiny):
    network = lively(MambaPro(tiny))
    images, mask, camera = random_batch(tiny, 2)
    mask[:, 1] = 0
    other = images.clone()
    other[:, 1] = 255 - other[:, 1]
    torch.testing.assert_close(
        network.embed(images, mask, camera), network.embed(other, mask, camera), rtol=0, atol=0
    )
    mask[:, 1] = 1
    a, b = network.embed(images, mask, camera), network.embed(other, mask, camera)
    assert (a - b).abs().max() > 1e-3


@torch.no_grad()
def test_unknown_camera_takes_the_mean_row(tiny):
    network = lively(MambaPro(tiny))
    tokens = network.tower.class_tokens(torch.tensor([-1, 0, 1, 2]))
    torch.testing.assert_close(tokens[0], tokens[1:].mean(0))


@torch.no_grad()
@pytest.mark.parametrize("switches", [{}, {"ma": False}, {"ma": False, "direct": False}], ids=str)
def test_centring_takes_off_what_all_features_share(tiny, switches):
    """With the mean the neck has seen, a part common to all features does not count any more."""
    config = dataclasses.replace(tiny, centred=True, **switches)
    network, heads = lively(MambaPro(config)), Heads(config, identities=5)
    images, mask, camera = random_batch(config, 64)
    features = network(normalise(images, mask), camera)
    heads.train()
    for _ in range(200):
        heads(features)
    network.centre.copy_(heads.mean_feature())
    embeddings = network.embed(images, mask, camera)
    expected = features.embedding() - features.embedding().mean(0)
    if config.direct:  # one shared head takes the mean over modalities
        torch.testing.assert_close(
            embeddings, torch.nn.functional.normalize(expected, dim=-1), rtol=0, atol=1e-4
        )
    similar = (embeddings @ embeddings.T).mean()
    network.centre.zero_()
    plain = network.embed(images, mask, camera)
    assert similar < (plain @ plain.T).mean() - 0.1


def test_the_centre_is_part_of_the_weights(tiny):
    plain, centred = MambaPro(tiny), MambaPro(dataclasses.replace(tiny, centred=True))
    assert set(centred.state_dict()) - set(plain.state_dict()) == {"centre"}


def test_normalise_maps_colour_order_and_range():
    images = torch.zeros(2, 3, 4, 6, 3, dtype=torch.uint8)
    images[1, 2, 3, 5, 1] = 255
    pixels = normalise(images, torch.ones(2, 3))
    assert pixels.shape == (3, 2, 3, 4, 6)
    assert pixels[2, 1, 1, 3, 5] == 1.0
    assert pixels.sum() == -(pixels.numel() - 1) + 1


def test_frozen_tower_keeps_only_what_clip_has_not(tiny):
    network = MambaPro(dataclasses.replace(tiny, frozen=True))
    learned = {n for n, p in network.tower.named_parameters() if p.requires_grad}
    assert learned
    assert all(any(k in n for k in ("prompts", "adapter", "cv_embed")) for n in learned)
    assert all(p.requires_grad for p in network.aggregation.parameters())
    assert all(p.requires_grad for p in MambaPro(tiny).parameters())


@pytest.mark.parametrize(("direct", "pairs"), [(True, 2), (False, 4)])
def test_heads_pair_logits_with_features(tiny, direct, pairs):
    config = dataclasses.replace(tiny, direct=direct)
    network, heads = MambaPro(config), Heads(config, identities=5)
    images, mask, camera = random_batch(tiny, 4)
    outputs = heads(network(normalise(images, mask), camera))
    assert [tuple(logits.shape) for logits, _ in outputs] == [(4, 5)] * pairs
    assert outputs[-1][1].shape == (4, config.embedding_dim)
    assert not heads.tokens.bottleneck.bias.requires_grad
