"""ONNX Runtime's TensorRT provider: what it must be told. It has not run on a GPU yet.

It takes plugins from libraries that ``trt_extra_plugin_lib_paths`` names, and only for nodes of the
domain ``trt.plugins``; so it gets the model file with the scan in that domain and without its body.
Each session builds an engine anew, which takes minutes: export/to_trt.py builds one that lasts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from mambapro.cli import InputError, MissingError
from mambapro.contract import CAMERA, IMAGES, MODALITIES, MODALITY_MASK, OP_DOMAIN
from mambapro.spec import ModelSpec, spec_from_metadata

if TYPE_CHECKING:
    import onnx

TENSORRT: Final = "TensorrtExecutionProvider"
PLUGIN_DOMAIN: Final = "trt.plugins"


def prepare(path: Path, library: Path | None, max_batch: int) -> tuple[bytes, dict[str, str]]:
    """Return the model for the provider and the provider's options.

    ``library`` holds the plugin; None leaves the scan a loop. Batches are 1 to ``max_batch``.

    Raises:
        InputError: ``path`` is not a model file of ours.
        MissingError: the package onnx, which edits the file, is not there.
    """
    model = _load(path)
    spec = spec_from_metadata({p.key: p.value for p in model.metadata_props}, str(path))
    options = _profile(spec, max_batch)
    if library is not None:
        use_plugin(model)
        options["trt_extra_plugin_lib_paths"] = str(library)
    return model.SerializeToString(), options


def use_plugin(model: onnx.ModelProto) -> None:
    """Move our nodes to the domain of plugins and drop their bodies, in place."""
    for node in model.graph.node:
        if node.domain == OP_DOMAIN:
            node.domain = PLUGIN_DOMAIN
    for item in model.opset_import:
        if item.domain == OP_DOMAIN:
            item.domain = PLUGIN_DOMAIN
    del model.functions[:]


def _profile(spec: ModelSpec, max_batch: int) -> dict[str, str]:
    """Return one range for all batches: without it each larger batch builds another engine."""
    least, most = _shapes(spec, 1), _shapes(spec, max_batch)
    return {
        "trt_profile_min_shapes": least,
        "trt_profile_opt_shapes": most,
        "trt_profile_max_shapes": most,
    }


def _shapes(spec: ModelSpec, batch: int) -> str:
    height, width = spec.image_size
    slots = len(MODALITIES)
    images = f"{IMAGES}:{batch}x{slots}x{height}x{width}x3"
    return f"{images},{MODALITY_MASK}:{batch}x{slots},{CAMERA}:{batch}"


def _load(path: Path) -> onnx.ModelProto:
    try:
        import onnx
    except ImportError as error:
        raise MissingError(
            f"the TensorRT provider needs the package onnx ({error}); install it with: pip install "
            "onnx"
        ) from error
    try:
        return onnx.load(str(path))
    except Exception as error:  # onnx raises protobuf's own errors, which differ between versions
        raise InputError(f"cannot read {path} as ONNX: {error}") from error
