"""What parameters are called elsewhere: in the authors' checkpoints and in CLIP's."""

from __future__ import annotations

import re

import torch
from torch import Tensor

# Applied in order to a name of ours. "{a|b|c}" marks a stacked parameter: one tensor a slice.
_AUTHORS_TOWER = (
    ("tower.cv_embed", "BACKBONE.cv_embed"),
    ("tower.blocks.", "BACKBONE.base.transformer.resblocks."),
    ("tower.", "BACKBONE.base."),
    ("attn.in_proj.", "attn.in_proj_"),
    (".prompts.learned", ".adapter_prompt_{rgb|nir|tir}"),
    (".prompts.transfer.0.", ".adapter_r."),
    (".prompts.transfer.1.", ".adapter_n."),
    (".prompts.transfer.2.", ".adapter_t."),
    (".prompts.residual.", ".adapter_transfer."),
    (".adapter.fc2.", ".adapter_ffn.2."),
    (".adapter.fc1.", ".adapter_ffn.0."),
    (".fc1.", ".0."),
    (".fc2.", ".3."),
)
_AUTHORS_AGGREGATION = (
    (".in_proj.0.", ".in_proj_r."),
    (".in_proj.1.", ".in_proj_n."),
    (".in_proj.2.", ".in_proj_t."),
    (".conv.0.", ".conv2d_r."),
    (".conv.1.", ".conv2d_n."),
    (".conv.2.", ".conv2d_t."),
    (".norm.0.", ".linear_reduction_r.0."),
    (".norm.1.", ".linear_reduction_n.0."),
    (".norm.2.", ".linear_reduction_t.0."),
    (".reduce.0.", ".linear_reduction_r.1."),
    (".reduce.1.", ".linear_reduction_n.1."),
    (".reduce.2.", ".linear_reduction_t.1."),
    ("SSM_intra.ssm.", "SSM_intra.SSM_{r|n|t}_f."),
    ("SSM_inter.ssm.", "SSM_inter.SSM_{2}_f."),
    ("x_proj", "x_proj.weight"),
    ("dt_proj", "dt_proj.weight"),
    ("dt_bias", "dt_proj.bias"),
    ("norm_weight", "out_norm.weight"),
    ("norm_bias", "out_norm.bias"),
)


def authors_network_names(name: str) -> str | tuple[str, ...]:
    """Return the authors' name of our network's parameter ``name``, or one name a stacked slice."""
    if name.startswith("tower."):
        return _expand(_rename(name, _AUTHORS_TOWER))
    unit = re.match(r"aggregation\.units\.(\d+)\.(.*)", name)
    if unit is None:
        return _rename(name.replace("aggregation.", "AAM."), _AUTHORS_AGGREGATION)
    block, inter = divmod(int(unit[1]), 2)
    prefix = f"AAM.ma_block.{block}.{'SSM_inter' if inter else 'SSM_intra'}"
    return _expand(_rename(f"{prefix}.{unit[2]}", _AUTHORS_AGGREGATION))


def authors_head_names(name: str, direct: bool) -> str:
    """Return the authors' name of our heads' parameter ``name``."""
    head, part, rest = name.split(".", 2)
    if head == "fused":
        return f"{part}_fuse.{rest}"
    return f"{part}.{rest}" if direct else f"BACKBONE.{part}.{rest}"


def clip_visual_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return CLIP's visual tower under our names, from any of its three namings; {} if none fits.

    OpenAI and open_clip: ``visual.transformer.resblocks...``. Hugging Face: ``vision_model...``
    with ``visual_projection.weight``. Floating point becomes float32.
    """
    if any(name.endswith("embeddings.patch_embedding.weight") for name in state):
        visual = _from_hugging_face(state)
    else:
        visual = {
            name.removeprefix("visual."): value
            for name, value in state.items()
            if name.startswith("visual.")
        }
    renames = (("transformer.resblocks.", "blocks."), ("attn.in_proj_", "attn.in_proj."))
    return {_rename(name, renames): value.float() for name, value in visual.items()}


_HUGGING_FACE = (
    ("embeddings.class_embedding", "class_embedding"),
    ("embeddings.patch_embedding.", "conv1."),
    ("embeddings.position_embedding.weight", "positional_embedding"),
    ("pre_layrnorm.", "ln_pre."),  # Hugging Face's own spelling
    ("post_layernorm.", "ln_post."),
    ("encoder.layers.", "blocks."),
    ("layer_norm1.", "ln_1."),
    ("layer_norm2.", "ln_2."),
    ("self_attn.out_proj.", "attn.out_proj."),
    ("mlp.fc1.", "mlp.c_fc."),
    ("mlp.fc2.", "mlp.c_proj."),
)


def _from_hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    vision = {
        name.removeprefix("vision_model."): value
        for name, value in state.items()
        if not name.startswith(("text_", "logit_scale", "visual_projection"))
    }
    visual = {}
    for name, value in vision.items():
        match = re.fullmatch(r"encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)", name)
        if match:
            parts = [vision[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            visual[f"blocks.{match[1]}.attn.in_proj.{match[2]}"] = torch.cat(parts)
        elif not re.search(r"self_attn\.[kv]_proj|position_ids", name):
            visual[_rename(name, _HUGGING_FACE)] = value
    if "visual_projection.weight" in state:
        visual["proj"] = state["visual_projection.weight"].T.contiguous()
    return visual


def _rename(name: str, replacements: tuple[tuple[str, str], ...]) -> str:
    for old, new in replacements:
        name = name.replace(old, new)
    return name


def _expand(name: str) -> str | tuple[str, ...]:
    match = re.search(r"\{(.*)\}", name)
    if match is None:
        return name
    return tuple(name.replace(match[0], choice) for choice in match[1].split("|"))
