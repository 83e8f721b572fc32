"""Loading weights: every kind of file, proven against transformers, and files that are wrong."""

import dataclasses
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from mambapro.cli import InputError
from mambapro.config import ExperimentConfig, ModelConfig
from mambapro.model.network import Heads, MambaPro
from mambapro.model.weights import (
    load_authors,
    load_checkpoint,
    load_pretrained,
    resize_positions,
    save_checkpoint,
)
from tests import golden
from tests.tolerances import CLIP_TOKENS

# A square image at CLIP's own grid, so that both networks see the same positions.
PLAIN = ModelConfig(
    image_size=(64, 64),
    patch_size=16,
    width=64,
    depth=3,
    heads=4,
    output_dim=32,
    pfa=False,
    srp=False,
    ma=False,
    sie=False,
)


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=64,
        patch_size=16,
        projection_dim=32,
        hidden_act="quick_gelu",
    )
    model = CLIPVisionModelWithProjection(config).eval()
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * 0.05
    return model


def hugging_face(clip) -> dict[str, torch.Tensor]:
    """Names as in published files: the vision part is prefixed."""
    state = {}
    for name, value in clip.state_dict().items():
        prefixed = name.startswith(("vision_model.", "visual_projection"))
        state[name if prefixed else f"vision_model.{name}"] = value.contiguous()
    return state


def openai(clip) -> dict[str, torch.Tensor]:
    """The same weights under OpenAI's names, written by hand from their published model."""
    theirs = {n.removeprefix("vision_model."): v for n, v in hugging_face(clip).items()}
    state = {
        "class_embedding": theirs["embeddings.class_embedding"],
        "conv1.weight": theirs["embeddings.patch_embedding.weight"],
        "positional_embedding": theirs["embeddings.position_embedding.weight"],
        "proj": theirs["visual_projection.weight"].T.contiguous(),
    }
    for kind in ("weight", "bias"):
        state[f"ln_pre.{kind}"] = theirs[f"pre_layrnorm.{kind}"]
        state[f"ln_post.{kind}"] = theirs[f"post_layernorm.{kind}"]
        for i in range(3):
            layer, block = f"encoder.layers.{i}", f"transformer.resblocks.{i}"
            qkv = [theirs[f"{layer}.self_attn.{p}_proj.{kind}"] for p in "qkv"]
            state[f"{block}.attn.in_proj_{kind}"] = torch.cat(qkv)
            state[f"{block}.attn.out_proj.{kind}"] = theirs[f"{layer}.self_attn.out_proj.{kind}"]
            state[f"{block}.ln_1.{kind}"] = theirs[f"{layer}.layer_norm1.{kind}"]
            state[f"{block}.ln_2.{kind}"] = theirs[f"{layer}.layer_norm2.{kind}"]
            state[f"{block}.mlp.c_fc.{kind}"] = theirs[f"{layer}.mlp.fc1.{kind}"]
            state[f"{block}.mlp.c_proj.{kind}"] = theirs[f"{layer}.mlp.fc2.{kind}"]
    return {f"visual.{name}": value for name, value in state.items()}


class _Archive(torch.nn.Module):
    """A module that carries a state dict into a TorchScript archive, as OpenAI publishes it."""

    def __init__(self, state):
        super().__init__()
        for name, value in state.items():
            *path, leaf = name.split(".")
            module = self
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, torch.nn.Module())
                module = getattr(module, part)
            module.register_parameter(leaf, torch.nn.Parameter(value))

    def forward(self, x):
        return x


def write(kind: str, clip, folder):
    path = folder / f"{kind}.{'safetensors' if kind == 'hugging_face' else 'pt'}"
    if kind == "hugging_face":
        save_file(hugging_face(clip), path)
    elif kind == "openai_torchscript":
        torch.jit.save(torch.jit.trace(_Archive(openai(clip)), torch.zeros(1)), path)
    elif kind == "openai_half":
        torch.save({n: v.half() for n, v in openai(clip).items()}, path)
    else:
        # open_clip's files also hold the text tower and a scale.
        extra = {
            "transformer.resblocks.0.ln_1.weight": torch.ones(3),
            "logit_scale": torch.ones(()),
        }
        torch.save(
            {"state_dict": openai(clip) | extra} if kind == "open_clip" else openai(clip), path
        )
    return path


@torch.no_grad()
@pytest.mark.parametrize("kind", ["openai", "openai_torchscript", "open_clip", "hugging_face"])
def test_clip_weights_give_transformers_tokens(clip, kind, tmp_path):
    network = MambaPro(PLAIN).eval()
    assert load_pretrained(network, write(kind, clip, tmp_path)) == "clip"
    pixels = torch.randn(3, 2, 3, 64, 64)
    ours = network.tower(pixels, torch.tensor([0, 0]))
    for m in range(3):
        theirs = clip(pixel_values=pixels[m])
        hidden = clip.vision_model.post_layernorm(theirs.last_hidden_state)
        expected = clip.visual_projection(hidden)
        torch.testing.assert_close(ours[m], expected, rtol=0, atol=CLIP_TOKENS)
        torch.testing.assert_close(ours[m][:, 0], theirs.image_embeds, rtol=0, atol=CLIP_TOKENS)


def test_half_precision_clip_is_loaded_as_float32(clip, tmp_path):
    network = MambaPro(PLAIN)
    load_pretrained(network, write("openai_half", clip, tmp_path))
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_clip_leaves_what_it_has_not(clip, tmp_path):
    network = MambaPro(dataclasses.replace(PLAIN, pfa=True, srp=True, ma=True, sie=True))
    before = {n: v.clone() for n, v in network.state_dict().items()}
    load_pretrained(network, write("openai", clip, tmp_path))
    after = network.state_dict()
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    assert {"tower.proj", "tower.blocks.2.mlp.c_fc.weight"} <= changed
    assert not any("adapter" in n or "prompts" in n or "cv_embed" in n for n in changed)
    assert not any(n.startswith("aggregation.") for n in changed)


def test_positions_are_resized_bilinearly_and_the_class_row_is_kept():
    rows = torch.arange(14.0).repeat_interleave(14)  # rises with the row, constant along a row
    embedding = torch.cat([torch.tensor([[99.0]]), rows[:, None]])
    resized = resize_positions(embedding, (16, 8))
    assert resized.shape == (1 + 16 * 8, 1)
    assert resized[0] == 99
    grid = resized[1:, 0].view(16, 8)
    assert torch.equal(grid, grid[:, :1].expand(-1, 8))
    # align_corners=False: centre of output row i lies at (i + .5) * 14/16 - .5 of the input.
    expected = ((torch.arange(16) + 0.5) * 14 / 16 - 0.5).clamp(0, 13)
    torch.testing.assert_close(grid[:, 0], expected)


def test_clip_of_another_size_is_refused_by_name(clip, tmp_path):
    network = MambaPro(dataclasses.replace(PLAIN, width=32))
    with pytest.raises(InputError, match=r"wrong shape: .*and \d+ more"):
        load_pretrained(network, write("openai", clip, tmp_path))


def test_authors_checkpoint_with_heads(tmp_path):
    path = tmp_path / "authors.pth"
    torch.save(golden.authors_state(), path)
    config = ModelConfig(ma=False)
    network, heads = MambaPro(config), Heads(ModelConfig(direct=False), identities=20)
    assert load_pretrained(network, path, heads) == "authors"
    torch.testing.assert_close(
        heads.tokens.classifier.weight, golden.authors_state()["BACKBONE.classifier.weight"]
    )
    torch.testing.assert_close(
        heads.fused.bottleneck.running_var, golden.authors_state()["bottleneck_fuse.running_var"]
    )


def test_authors_checkpoint_that_lacks_a_part_is_refused(tiny):
    state = {n: v for n, v in golden.authors_state().items() if "ma_block.1" not in n}
    with pytest.raises(InputError, match=r"missing: aggregation\.units\.2"):
        load_authors(MambaPro(ModelConfig()), state, "x.pth")


def test_checkpoint_round_trip(tiny, tmp_path):
    config = ExperimentConfig(model=tiny)
    network, heads = MambaPro(tiny), Heads(tiny, identities=6)
    path = tmp_path / "best.pt"
    save_checkpoint(path, config, network, heads, {"epoch": 3, "map": 0.5})
    checkpoint = load_checkpoint(path)
    assert checkpoint.config == config
    assert checkpoint.identities == 6
    assert checkpoint.training == {"epoch": 3, "map": 0.5}
    for name, value in network.state_dict().items():
        assert torch.equal(checkpoint.network.state_dict()[name], value), name
    assert not checkpoint.network.training
    assert load_pretrained(MambaPro(tiny), path) == "mambapro"


def test_checkpoint_of_another_architecture_is_refused(tiny, tmp_path):
    save_checkpoint(
        tmp_path / "a.pt", ExperimentConfig(model=tiny), MambaPro(tiny), Heads(tiny, 3), {}
    )
    other = MambaPro(dataclasses.replace(tiny, depth=2, width=64))
    with pytest.raises(InputError, match="does not fit this network") as error:
        load_pretrained(other, tmp_path / "a.pt")
    assert "unexpected: " in str(error.value)
    assert "wrong shape: " in str(error.value)
    assert len(str(error.value)) < 1500


class _Evil:
    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.parametrize("content", ["absent", "text", "empty", "pickle", "zip", "tensor"])
def test_files_that_are_no_weights(tiny, tmp_path, content, capsys):
    path = tmp_path / "weights.pt"
    if content == "text":
        path.write_text("hello")
    elif content == "empty":
        path.touch()
    elif content == "pickle":
        torch.save({"network": _Evil()}, path)
    elif content == "zip":
        zipfile.ZipFile(path, "w").close()
    elif content == "tensor":
        torch.save(torch.ones(3), path)
    for load in (load_checkpoint, lambda p: load_pretrained(MambaPro(tiny), p)):
        with pytest.raises(InputError, match=r"weights\.pt") as error:
            load(path)
        assert "\n" not in str(error.value)
    assert "code ran" not in capsys.readouterr().out


def test_a_damaged_safetensors_file(tiny, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(InputError, match="cannot read weights"):
        load_pretrained(MambaPro(tiny), tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="no weights file"):
        load_pretrained(MambaPro(tiny), tmp_path / "b.safetensors")


def test_a_full_disk_keeps_the_old_checkpoint(tiny, tmp_path, monkeypatch):
    config, path = ExperimentConfig(model=tiny), tmp_path / "last.pt"
    save_checkpoint(path, config, MambaPro(tiny), Heads(tiny, 3), {"epoch": 1})

    def no_space(values, file):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", no_space)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, config, MambaPro(tiny), Heads(tiny, 3), {"epoch": 2})
    assert load_checkpoint(path).training == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]
