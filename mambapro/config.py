"""Frozen dataclasses <-> YAML, strictly: unknown keys and wrong types are errors naming the key.

The docstring under a field is its help (:func:`describe`). A stage with settings of its own
declares its dataclasses in its own folder and reads them with :func:`load`.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import textwrap
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from mambapro.cli import InputError
from mambapro.contract import MODALITIES, Subject

T = TypeVar("T")


@dataclass(frozen=True)
class ModelConfig:
    """Dimensions and switches of the network; the defaults are the paper's, on CLIP ViT-B/16."""

    image_size: tuple[int, int] = (256, 128)
    """Height and width of a crop, px; multiples of patch_size."""
    patch_size: int = 16
    """Side of a square patch, px."""
    width: int = 768
    """Channels of the visual tower."""
    depth: int = 12
    """Transformer blocks."""
    heads: int = 12
    """Attention heads; divides width."""
    output_dim: int = 512
    """Channels after the projection; the embedding has three times as many."""
    prompts: int = 4
    """Learned prompts K a modality and block."""
    prompt_dim: int = 384
    """Hidden channels of a prompt transfer."""
    adapter_dim: int = 1536
    """Hidden channels of a parallel feed-forward adapter."""
    state_size: int = 16
    """State size N of the selective scan."""
    scan_dim: int = 1024
    """Inner channels of Mamba Aggregation."""
    dt_rank: int = 32
    """Rank of the time-step projection."""
    aggregation_blocks: int = 2
    """Mamba Aggregation blocks, each an intra and an inter unit."""
    cameras: int = 4
    """Rows of the camera embedding."""
    sie_coefficient: float = 1.0
    """Weight of the camera embedding in the class token."""
    pfa: bool = True
    """Parallel Feed-Forward Adapters."""
    srp: bool = True
    """Synergistic Residual Prompts."""
    ma: bool = True
    """Mamba Aggregation; off, the embedding is the three class tokens."""
    sie: bool = True
    """Side information embedding of the camera."""
    bidirectional: bool = False
    """Scan the tokens in both directions."""
    frozen: bool = True
    """Freeze the visual tower but prompts, transfers, adapters and camera embedding."""
    direct: bool = True
    """Train one head on the concatenated class tokens; off, one shared head a modality."""
    centred: bool = False
    """Take off the mean feature of training before the embedding gets unit length."""

    def __post_init__(self) -> None:
        height, width = self.image_size
        if height % self.patch_size or width % self.patch_size or min(height, width) < 1:
            raise InputError(
                f"model.image_size must be positive multiples of patch_size {self.patch_size}, "
                f"got {height}x{width}"
            )
        if self.width % self.heads:
            raise InputError(f"model.heads must divide width {self.width}, got {self.heads}")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def embedding_dim(self) -> int:
        """Channels of the exported embedding."""
        return len(MODALITIES) * self.output_dim


@dataclass(frozen=True)
class DataConfig:
    """Which images, and how they are augmented."""

    layout: Literal["rgbnt201", "rgbnt100", "msvr310"] = "rgbnt201"
    """Folder layout; it also sets the evaluation protocol."""
    root: str = "data"
    """Folder that contains the layout's own folder; a relative one starts at the checkout."""
    subject: Subject = "person"
    """What the images show."""
    synthetic: SyntheticData | None = None
    """Make the data when root is absent; leave out for real data."""
    max_unreadable_share: float = 0.01
    """Training goes on when at most this share of the images cannot be read."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    pad_px: int = 10
    """Padding before the random crop, px."""
    erase: float = 0.5
    """Probability of random erasing."""
    shared_augmentation: bool = False
    """Flip, shift and erase the three modalities alike; off, each by draws of its own, as the
    paper."""
    allow_single: bool = False
    """Train on identities with one triplet too; it is repeated in its batch."""
    workers: int = 2
    """Processes that read and augment; 0 reads in the training process."""
    cache_mb: int = 512
    """Resized pictures of a split are kept in memory when they need at most this much, MB."""

    def __post_init__(self) -> None:
        for name in ("flip", "erase", "max_unreadable_share"):
            _check_share(f"data.{name}", getattr(self, name))


@dataclass(frozen=True)
class SyntheticData:
    """How much synthetic data to make."""

    train_identities: int = 100
    """Identities of the training split."""
    test_identities: int = 40
    """Identities of the test split, none of them in training."""
    cameras: int = 4
    """Viewing positions."""
    images_per_camera: int = 3
    """Triplets of an identity at a viewing position."""
    size: tuple[int, int] = (128, 64)
    """Height and width of a stored crop, px."""
    seed: int = 7
    """Same seed, same bytes."""


@dataclass(frozen=True)
class TrainConfig:
    """Losses, optimiser and schedule; the defaults are the paper's for RGBNT201."""

    epochs: int = 60
    """Passes over the training split."""
    warmup_epochs: int = 10
    """Epochs of linear warm-up from a hundredth of lr."""
    batch_size: int = 64
    """Triplets a step."""
    instances: int = 4
    """Triplets of one identity in a batch; divides batch_size."""
    accumulate: int = 1
    """Batches whose mean gradient makes one step. Each is a whole batch of its own to the losses
    and to batch normalisation: hardest triplets are looked for within it."""
    lr: float = 3.5e-4
    """Learning rate of weights."""
    bias_lr_factor: float = 2.0
    """Biases learn at lr times this."""
    weight_decay: float = 1e-4
    """Weight decay of Adam (L2, as the paper's)."""
    label_smoothing: float = 0.1
    """Label smoothing of the identity loss."""
    identity_weight: float = 0.25
    """Weight of the identity loss."""
    triplet_weight: float = 1.0
    """Weight of the batch-hard triplet loss."""
    modality_dropout: float = 0.0
    """Probability that a triplet misses modalities, each of the six incomplete subsets drawn as
    often, in further epochs after training, a quarter as many: Mamba Aggregation alone then learns
    to give incomplete triplets the features of complete ones. 0 leaves these epochs out."""
    unknown_camera: float = 0.0
    """Probability that a training triplet is of an unknown camera: rigs elsewhere have no row."""
    amp: bool = True
    """Automatic mixed precision."""
    amp_type: Literal["auto", "float16", "bfloat16"] = "auto"
    """Type of products under amp: auto is float16 on CUDA and none on a CPU. float16 scales the
    loss."""
    checkpointing: bool = False
    """Compute the tower's activations again for their gradients: less memory, longer steps."""
    compile: bool = False
    """Compile the tower with torch.compile, which needs a C++ compiler."""
    deterministic: bool = False
    """Refuse operations that may differ from run to run: the same seed, threads and devices give
    the same weights to the last bit."""
    seed: int = 1
    """Seed of weights, sampling and augmentation."""
    eval_every: int = 5
    """Epochs between evaluations; the last epoch is always evaluated."""
    pretrained: str | None = None
    """CLIP weights or a checkpoint to start from, a relative path starting at the checkout; none
    trains from scratch."""

    def __post_init__(self) -> None:
        if self.instances < 2 or self.batch_size % self.instances:
            raise InputError(
                f"train.instances must be at least 2 and divide batch_size {self.batch_size}, "
                f"got {self.instances}"
            )
        for name in ("epochs", "batch_size", "accumulate", "eval_every"):
            if getattr(self, name) < 1:
                raise InputError(f"train.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("modality_dropout", "unknown_camera", "label_smoothing"):
            _check_share(f"train.{name}", getattr(self, name))


@dataclass(frozen=True)
class ExperimentConfig:
    """One training run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if self.train.modality_dropout and not self.model.ma:
            raise InputError(
                "train.modality_dropout needs model.ma=true: it is Mamba Aggregation that learns "
                "to do without a modality"
            )


def load(cls: type[T], path: str | Path, overrides: Iterable[str] = ()) -> T:
    """Read the YAML file ``path`` as ``cls``, then apply overrides such as ``train.lr=0.001``.

    Raises InputError with the file, the key and what is legal: for a file that is not there or not
    YAML, an unknown key (the nearest known one is named), or a value of another type.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read config {path}: {error.strerror}") from error
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    try:
        return from_dict(cls, merge_overrides(values, overrides))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def merge_overrides(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return ``values`` with each ``section.key=value`` put in; values are read as YAML."""
    merged: dict[str, Any] = _copy_maps(values)
    for override in overrides:
        dotted, equals, text = override.partition("=")
        if not equals:
            raise InputError(f"--set takes section.key=value, got {override!r}")
        *sections, key = dotted.strip().split(".")
        target = merged
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise InputError(f"--set {override!r}: {section} is a value, not a section")
        target[key] = yaml.safe_load(text)
    return merged


def from_dict(cls: type[T], values: Any) -> T:
    """Build ``cls`` from a mapping; see :func:`load` for what is refused."""
    result: T = _convert(cls, values, "")
    return result


def from_record(cls: type[T], values: Any) -> T:
    """Build ``cls`` from what a file recorded; settings that are gone since are left out."""
    return from_dict(cls, _still_known(cls, values))


def to_dict(config: Any) -> dict[str, Any]:
    """Return ``config`` as plain dicts, lists and scalars that :func:`from_dict` reads back."""
    plain: dict[str, Any] = _plain(dataclasses.asdict(config))
    return plain


def to_yaml(config: Any) -> str:
    """Return ``config`` as YAML text."""
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def describe(cls: type[Any], prefix: str = "") -> list[tuple[str, str, str, str]]:
    """List (dotted key, type, default, help) for every field of ``cls``, sections included."""
    rows: list[tuple[str, str, str, str]] = []
    hints = typing.get_type_hints(cls)
    documentation = _field_docs(cls)
    for item in dataclasses.fields(cls):
        key, kind = f"{prefix}{item.name}", hints[item.name]
        section = _section(kind)
        if section is None:
            rows.append((key, _type_name(kind), _default(item), documentation.get(item.name, "")))
        else:
            rows += describe(section, f"{key}.")
    return rows


def help_text(cls: type[Any]) -> str:
    """Return one line a setting for a command's ``--help``."""
    lines = [
        f"  {key} ({kind}, default {default}): {doc}" for key, kind, default, doc in describe(cls)
    ]
    return "settings of the YAML file and of --set section.key=value:\n" + "\n".join(lines)


def _check_share(key: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"{key} must be from 0 to 1, got {value}")


def _convert(kind: Any, value: Any, key: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _convert_dataclass(kind, value, key)
    if kind is Any:
        return value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return _convert_optional(arguments, value, key)
    if origin is Literal:
        if value not in arguments:
            raise InputError(
                f"{key} must be one of {', '.join(map(str, arguments))}, got {value!r}"
            )
        return value
    if origin is tuple:
        return _convert_tuple(arguments, value, key)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise InputError(f"{key} must be a section of keys, got {value!r}")
        return {
            _convert(arguments[0], name, key): _convert(arguments[1], item, f"{key}.{name}")
            for name, item in value.items()
        }
    return _convert_scalar(kind, value, key)


def _convert_dataclass(cls: type[Any], value: Any, key: str) -> Any:
    if not isinstance(value, Mapping):
        raise InputError(f"{key or 'the file'} must be a section of keys, got {value!r}")
    hints = typing.get_type_hints(cls)
    names = [item.name for item in dataclasses.fields(cls)]
    path = f"{key}." if key else ""
    for name in value:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.0)[0]
            raise InputError(f"unknown key {path}{name}; the nearest known key is {path}{near}")
    for item in dataclasses.fields(cls):
        required = (
            item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        )
        if required and item.name not in value:
            raise InputError(f"{path}{item.name} is missing; it has no default")
    return cls(
        **{name: _convert(hints[name], item, f"{path}{name}") for name, item in value.items()}
    )


def _still_known(cls: type[Any], values: Any) -> Any:
    if not isinstance(values, Mapping):
        return values
    hints = typing.get_type_hints(cls)
    kept = {name: value for name, value in values.items() if name in hints}
    sections = {name: _section(hints[name]) for name in kept}
    return {
        name: value if (section := sections[name]) is None else _still_known(section, value)
        for name, value in kept.items()
    }


def _convert_optional(arguments: tuple[Any, ...], value: Any, key: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    (kind,) = (argument for argument in arguments if argument is not type(None))
    return _convert(kind, value, key)


def _convert_tuple(arguments: tuple[Any, ...], value: Any, key: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise InputError(f"{key} must be a list, got {value!r}")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_convert(arguments[0], item, f"{key}[{i}]") for i, item in enumerate(value))
    if len(value) != len(arguments):
        raise InputError(f"{key} must have {len(arguments)} items, got {value!r}")
    return tuple(
        _convert(kind, item, f"{key}[{i}]")
        for i, (kind, item) in enumerate(zip(arguments, value, strict=True))
    )


def _convert_scalar(kind: Any, value: Any, key: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise InputError(f"{key} must be a number, got one that is too large") from None
    if kind is float and isinstance(value, str):
        # YAML 1.1 reads 1e-4 (no point) as text.
        try:
            return float(value)
        except ValueError:
            pass
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{key} must be {_type_name(kind)}, got {value!r}")
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _copy_maps(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {key: _copy_maps(item) for key, item in values.items()}
    return values


def _section(kind: Any) -> type[Any] | None:
    for candidate in (kind, *typing.get_args(kind)):
        if dataclasses.is_dataclass(candidate) and isinstance(candidate, type):
            return candidate
    return None


def _type_name(kind: Any) -> str:
    return (
        kind.__name__
        if isinstance(kind, type) and not typing.get_args(kind)
        else str(kind).replace("typing.", "")
    )


def _default(item: dataclasses.Field[Any]) -> str:
    if item.default is not dataclasses.MISSING:
        return str(item.default)
    if item.default_factory is not dataclasses.MISSING:
        return str(item.default_factory())
    return "required"


def _field_docs(cls: type[Any]) -> dict[str, str]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    docs = {}
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            docs[statement.target.id] = str(following.value.value)
    return docs
