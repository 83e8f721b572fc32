import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from mambapro import config as configs
from mambapro.cli import InputError
from mambapro.config import ExperimentConfig, ModelConfig, SyntheticData

RECIPES = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
EXPERIMENTS = [path for path in RECIPES if not path.name.startswith("stream")]


def write(folder, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_there_are_recipes():
    names = {path.stem for path in EXPERIMENTS}
    assert {"demo_person", "demo_vehicle", "rgbnt201", "rgbnt100", "msvr310"} <= names


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads_and_survives_a_round_trip(path):
    config = configs.load(ExperimentConfig, path)
    assert configs.from_dict(ExperimentConfig, yaml.safe_load(configs.to_yaml(config))) == config


PAPER = {  # image size, epochs, warm-up, batch, instances, direct
    "rgbnt201": ((256, 128), 60, 10, 64, 4, True),
    "rgbnt100": ((128, 256), 30, 5, 128, 16, False),
    "msvr310": ((128, 256), 60, 10, 64, 4, False),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_recipes(name):
    c = configs.load(ExperimentConfig, Path(__file__).parents[1] / f"configs/{name}.yaml")
    assert PAPER[name] == (
        c.model.image_size,
        c.train.epochs,
        c.train.warmup_epochs,
        c.train.batch_size,
        c.train.instances,
        c.model.direct,
    )
    assert c.data.layout == name
    assert (c.model.width, c.model.depth, c.model.frozen) == (768, 12, True)
    assert (c.train.lr, c.train.weight_decay) == (3.5e-4, 1e-4)


def test_defaults_of_an_empty_file(tmp_path):
    assert configs.load(ExperimentConfig, write(tmp_path, "")) == ExperimentConfig()


def test_overrides_are_yaml_and_reach_sections_that_the_file_has_not(tmp_path):
    config = configs.load(
        ExperimentConfig,
        write(tmp_path, "train: {epochs: 3}"),
        ["train.lr=1e-3", "model.image_size=[64, 32]", "data.synthetic.seed=5", "model.pfa=false"],
    )
    assert config.train.epochs == 3
    assert config.train.lr == 1e-3
    assert config.model.image_size == (64, 32)
    assert config.model.pfa is False
    assert config.data.synthetic == SyntheticData(seed=5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "train: {ephocs: 3}",
            r"unknown key train\.ephocs; the nearest known key is train\.epochs",
        ),
        ("trian: {}", r"unknown key trian; the nearest known key is train"),
        ("train: {epochs: many}", r"train\.epochs must be int, got 'many'"),
        ("train: {epochs: 1.5}", r"train\.epochs must be int, got 1\.5"),
        ("train: {epochs: true}", r"train\.epochs must be int, got True"),
        ("train: {lr: fast}", r"train\.lr must be float, got 'fast'"),
        ("model: {pfa: 1}", r"model\.pfa must be bool, got 1"),
        ("model: {image_size: [64]}", r"model\.image_size must have 2 items"),
        ("model: {image_size: 64}", r"model\.image_size must be a list"),
        ("model: {image_size: [60, 32]}", r"multiples of patch_size 16, got 60x32"),
        ("model: {heads: 5}", r"model\.heads must divide width 768, got 5"),
        ("data: {layout: market}", r"data\.layout must be one of rgbnt201, rgbnt100, msvr310"),
        ("train: {instances: 3}", r"train\.instances must .* divide batch_size 64, got 3"),
        ("train: 3", r"train must be a section of keys, got 3"),
        ("[1, 2]", r"the file must be a section of keys"),
        ("a: [", r"is not YAML"),
    ],
)
def test_bad_files_name_the_key_and_what_is_legal(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=message) as error:
        configs.load(ExperimentConfig, path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read config .*no\.yaml: No such file"):
        configs.load(ExperimentConfig, tmp_path / "no.yaml")


@pytest.mark.parametrize("override", ["train.lr", "train.lr.x=3"])
def test_bad_overrides(tmp_path, override):
    with pytest.raises(InputError, match="--set"):
        configs.load(ExperimentConfig, write(tmp_path, "train: {lr: 0.1}"), [override])


@dataclass(frozen=True)
class Inner:
    """A section."""

    name: str
    """A name without default."""


@dataclass(frozen=True)
class Outer:
    """All the shapes a setting can have."""

    inner: dict[str, Inner]
    """Sections by name."""
    items: tuple[float, ...] = (1.0,)
    """As many as you like."""
    maybe: int | None = None
    """None switches it off."""


def test_maps_lists_and_optionals():
    given = {"inner": {"a": {"name": "x"}}, "items": [1, 2.5], "maybe": 3}
    outer = configs.from_dict(Outer, given)
    assert outer == Outer({"a": Inner("x")}, (1.0, 2.5), 3)
    with pytest.raises(InputError, match=r"inner\.a\.name is missing; it has no default"):
        configs.from_dict(Outer, {"inner": {"a": {}}})
    with pytest.raises(InputError, match=r"inner must be a section"):
        configs.from_dict(Outer, {"inner": 3})


def test_every_setting_has_help():
    rows = configs.describe(ExperimentConfig)
    assert len(rows) > 40
    for key, _, _, text in rows:
        assert text, f"{key} has no docstring"
    assert "model.state_size (int, default 16): State size N" in configs.help_text(ExperimentConfig)


def test_configs_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig().depth = 3  # type: ignore[misc]


def test_a_record_may_have_settings_that_are_gone():
    recorded = configs.to_dict(ExperimentConfig())
    recorded["train"] |= {"epochs": 7, "gone": 0.5}
    recorded["model"]["gone_too"] = {"a": 1}
    recorded["left"] = None
    found = configs.from_record(ExperimentConfig, recorded)
    assert found.train.epochs == 7
    with pytest.raises(InputError, match="unknown key"):
        configs.from_dict(ExperimentConfig, recorded)
