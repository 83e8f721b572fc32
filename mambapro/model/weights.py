"""Read and write weights: our checkpoints, the authors' checkpoints, CLIP in three namings.

Nothing is ever unpickled but tensors and plain values (``weights_only=True``).
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mambapro import config as configs
from mambapro.cli import InputError
from mambapro.config import ExperimentConfig
from mambapro.files import replacing
from mambapro.model.names import authors_head_names, authors_network_names, clip_visual_state
from mambapro.model.network import ADAPTED, Heads, MambaPro

CHECKPOINT_FORMAT = 1

State = dict[str, Tensor]


@dataclass
class Checkpoint:
    """One of our checkpoints, its network built and filled, in eval mode."""

    config: ExperimentConfig
    network: MambaPro
    identities: int
    """Identities the heads were trained on."""
    heads: State
    training: dict[str, Any]
    """Optimiser, epoch, figures: what the training stage put in."""


def save_checkpoint(
    path: str | Path,
    config: ExperimentConfig,
    network: MambaPro,
    heads: Heads,
    training: Mapping[str, Any],
) -> None:
    """Write one file, whole or not at all; ``training`` holds tensors and plain values only."""
    values = {
        "format": CHECKPOINT_FORMAT,
        "config": configs.to_dict(config),
        "identities": heads.tokens.classifier.weight.shape[0],
        "network": network.state_dict(),
        "heads": heads.state_dict(),
        "training": dict(training),
    }
    with replacing(path) as aside:
        torch.save(values, aside)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read :func:`save_checkpoint` back; InputError when the file is not one of ours."""
    values = _load_torch(Path(path))
    if not isinstance(values, dict) or "format" not in values or "network" not in values:
        raise InputError(f"{path} is no checkpoint of train/main.py; start one from it with "
                         "--set train.pretrained=<file>")  # fmt: skip
    if values["format"] != CHECKPOINT_FORMAT:
        raise InputError(
            f"{path} has checkpoint format {values['format']}, this software reads "
            f"{CHECKPOINT_FORMAT}; train again"
        )
    config = configs.from_record(ExperimentConfig, values["config"])
    network = MambaPro(config.model)
    load_exactly(network, values["network"], str(path))
    return Checkpoint(
        config, network.eval(), values["identities"], values["heads"], values["training"]
    )


def load_exactly(module: torch.nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load ``state`` into ``module``; InputError lists missing, unexpected, misshapen names."""
    own = module.state_dict()
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("wrong shape", shapes))
    problems = [f"{kind}: {_shorten(names)}" for kind, names in kinds if names]
    if problems:
        raise InputError(f"{source} does not fit this network; " + "; ".join(problems))
    module.load_state_dict(dict(state))


def load_pretrained(network: MambaPro, path: str | Path, heads: Heads | None = None) -> str:
    """Load weights of any known kind into ``network`` (and ``heads``); return the kind's name.

    Known are our checkpoints, the authors' checkpoints (``BACKBONE.``, ``AAM.``), and CLIP's visual
    tower as OpenAI's state dict or TorchScript archive, as open_clip's, or as Hugging Face's
    safetensors. CLIP fills the tower's frozen parts; its position grid is resized to the image.
    """
    state, ours = read_state(path)
    if ours:
        load_exactly(network, state, str(path))
        return "mambapro"
    if any(name.startswith("BACKBONE.") for name in state):
        load_authors(network, state, str(path), heads)
        return "authors"
    load_clip(network, state, str(path))
    return "clip"


def read_state(path: str | Path) -> tuple[State, bool]:
    """Return the tensors of a weights file, and whether it is a checkpoint of ours."""
    path = Path(path)
    if path.suffix == ".safetensors":
        return _load_safetensors(path), False
    values = _load_torch(path)
    if isinstance(values, dict) and "network" in values and "format" in values:
        return values["network"], True
    for key in ("state_dict", "model"):
        if isinstance(values, dict) and isinstance(values.get(key), dict):
            values = values[key]
    if not isinstance(values, dict) or not all(isinstance(v, Tensor) for v in values.values()):
        raise InputError(f"{path} holds no state dict (a map of names to tensors)")
    return {name.removeprefix("module."): value for name, value in values.items()}, False


def load_authors(network: MambaPro, state: State, source: str, heads: Heads | None = None) -> None:
    """Fill ``network`` from a checkpoint of the published implementation.

    Their files hold every part even when it is switched off; parts this network has not are left.
    ``heads`` are filled too when given, and must then have the same identities and mode.
    """
    load_exactly(network, _gather(network, state, authors_network_names), source)
    if heads is not None:
        names = functools.partial(authors_head_names, direct=heads.direct)
        load_exactly(heads, _gather(heads, state, names), source)


def load_clip(network: MambaPro, state: State, source: str) -> None:
    """Fill the tower's own parts from CLIP's visual tower; what MambaPro adds keeps its values."""
    visual = clip_visual_state(state)
    if not visual:
        raise InputError(
            f"{source} is no CLIP visual tower, no checkpoint of ours and none of the authors'; "
            f"its first names are {_shorten(list(state))}"
        )
    own = network.tower.state_dict()
    if "positional_embedding" in visual:
        visual["positional_embedding"] = resize_positions(
            visual["positional_embedding"], network.config.grid
        )
    added = {name: value for name, value in own.items() if ADAPTED.intersection(name.split("."))}
    load_exactly(network.tower, {**visual, **added}, source)


def resize_positions(embedding: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resize positions (1 + side * side, D) to (1 + gh * gw, D); the class row is kept."""
    side = round((embedding.shape[0] - 1) ** 0.5)
    if grid == (side, side) or side * side != embedding.shape[0] - 1:
        return embedding
    image = embedding[1:].T.unflatten(1, (side, side))[None].float()  # (1, D, side, side)
    resized = F.interpolate(image, size=grid, mode="bilinear", align_corners=False)
    return torch.cat([embedding[:1], resized[0].flatten(1).T.to(embedding.dtype)])


def _gather(
    module: torch.nn.Module, state: State, names: Callable[[str], tuple[str, ...] | str]
) -> State:
    """Collect ``module``'s parameters from ``state`` by foreign names; slices are stacked."""
    gathered = {}
    for name in module.state_dict():
        theirs = names(name)
        if isinstance(theirs, str):
            if theirs in state:
                gathered[name] = state[theirs]
        elif all(part in state for part in theirs):
            gathered[name] = torch.stack([state[part] for part in theirs])
    return gathered


def _load_torch(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"no weights file {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch announces the archive we look for
            return torch.load(path, map_location="cpu", weights_only=True)
    except RuntimeError as error:
        if "TorchScript" not in str(error):
            raise InputError(f"cannot read weights {path}: {_first_line(error)}") from error
    except Exception as error:  # pickle, zip and torch raise their own kinds
        raise InputError(f"cannot read weights {path}: {_first_line(error)}") from error
    # OpenAI publishes CLIP as a TorchScript archive.
    return dict(torch.jit.load(str(path), map_location="cpu").state_dict())


def _load_safetensors(path: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError(f"no weights file {path}")
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise InputError(f"cannot read weights {path}: {_first_line(error)}") from error


def _shorten(names: list[str], most: int = 5) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
