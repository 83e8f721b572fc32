"""ModelSpec: the facts written into every model file, so that no deployment can get them wrong."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mambapro.cli import InputError
from mambapro.config import from_dict, to_dict
from mambapro.contract import MODALITIES, SPEC_FORMAT, SPEC_KEY, Subject
from mambapro.preprocess import RESIZE_RULE

if TYPE_CHECKING:
    import onnx

Precision = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True)
class MatchThreshold:
    """The cosine similarity above which two embeddings are called one identity."""

    cosine: float
    """Similarity in [-1, 1]."""
    false_match_rate: float
    """Share of pairs of different identities that reach it."""
    true_match_rate: float
    """Share of pairs of one identity that reach it."""
    source: str
    """The split and the number of pairs it was estimated on."""


@dataclass(frozen=True)
class ModelSpec:
    """What a model file says of itself; format 1."""

    subject: Subject
    """What the model recognises."""
    image_size: tuple[int, int]
    """Height and width of a crop, px."""
    embedding_dim: int
    """Channels of the embedding."""
    cameras: int
    """Rows of the camera embedding; camera -1 is unknown."""
    embedding_space: str
    """Hash over weights and preprocessing; embeddings of two spaces cannot be compared."""
    weights_hash: str
    """SHA-256 of the weights."""
    training: dict[str, Any] = field(default_factory=dict)
    """The resolved training config."""
    modalities: tuple[str, ...] = MODALITIES
    """Order of the modalities in the stacked tensor."""
    resize_rule: str = RESIZE_RULE
    """How crops are resized."""
    precision: Precision = "fp32"
    """Numeric type of the weights."""
    calibration: dict[str, Any] | None = None
    """Facts of the INT8 calibration."""
    match_threshold: MatchThreshold | None = None
    """Calibrated decision threshold."""
    format_version: int = SPEC_FORMAT
    """Version of this record."""

    def to_json(self) -> str:
        """Return the record as one line of JSON."""
        return json.dumps(to_dict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, name: str = "model") -> ModelSpec:
        """Read :meth:`to_json` back; InputError when it is damaged or of another format version."""
        try:
            values = json.loads(text)
            version = values["format_version"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{name}: the metadata {SPEC_KEY!r} is damaged ({error})") from error
        if version != SPEC_FORMAT:
            raise InputError(
                f"{name}: the metadata has format version {version}, this software reads "
                f"{SPEC_FORMAT}; export the model again with export/to_onnx.py"
            )
        return from_dict(cls, values)

    def replace(self, **changes: Any) -> ModelSpec:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def spec_from_metadata(metadata: dict[str, str], name: str) -> ModelSpec:
    """Return the spec held in a model's metadata map; InputError when it has none."""
    if SPEC_KEY not in metadata:
        raise InputError(
            f"{name} has no metadata {SPEC_KEY!r}; only files written by export/to_onnx.py work"
        )
    return ModelSpec.from_json(metadata[SPEC_KEY], name)


def write_spec(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Put ``spec`` into ``model.metadata_props``, replacing an older one."""
    for index in reversed(range(len(model.metadata_props))):
        if model.metadata_props[index].key == SPEC_KEY:
            del model.metadata_props[index]
    model.metadata_props.add(key=SPEC_KEY, value=spec.to_json())


def read_spec(path: str | Path) -> ModelSpec:
    """Return the spec of an ONNX file without running it; needs the ``onnx`` package."""
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # onnx raises protobuf's own errors, which differ between versions
        raise InputError(f"cannot read {path} as ONNX: {error}") from error
    return spec_from_metadata({p.key: p.value for p in model.metadata_props}, str(path))
