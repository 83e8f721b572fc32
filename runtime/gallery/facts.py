"""What a gallery says of itself, and whose embeddings it refuses."""

from __future__ import annotations

from typing import Any

from mambapro.cli import InputError
from mambapro.spec import ModelSpec
from runtime.gallery.backend import Facts


def facts_of(spec: ModelSpec) -> Facts:
    """Return the facts of a new gallery for the embeddings of a model."""
    return {
        "subject": spec.subject,
        "embedding_space": spec.embedding_space,
        "embedding_dim": spec.embedding_dim,
        "precision": spec.precision,
    }


def spec_of(place: str, facts: Facts) -> ModelSpec:
    """Return what of a model's spec matters to a gallery that has these facts."""
    try:
        return ModelSpec(
            subject=facts["subject"],
            image_size=(0, 0),
            embedding_dim=facts["embedding_dim"],
            cameras=0,
            embedding_space=facts["embedding_space"],
            weights_hash="",
            precision=facts["precision"],
        )
    except KeyError as missing:
        raise InputError(f"{place} holds no gallery: it does not say its {missing}") from missing


def check_facts(place: str, held: dict[str, Any], spec: ModelSpec, mix_precisions: bool) -> None:
    """Raise InputError unless embeddings of ``spec`` can be compared with those ``held``."""
    missing = facts_of(spec).keys() - held.keys()
    if missing:
        raise InputError(
            f"gallery {place} does not say whose embeddings it holds ({', '.join(sorted(missing))} "
            "missing); it was not written by this software, or is damaged: name another one"
        )
    space = held["embedding_space"]
    if space != spec.embedding_space or held["subject"] != spec.subject:
        raise InputError(
            f"gallery {place} holds {held['subject']} embeddings of space {space[:12]}, the "
            f"model makes {spec.subject} embeddings of space {spec.embedding_space[:12]}; use the "
            "model that filled it, or another gallery.folder"
        )
    if held["precision"] != spec.precision and not mix_precisions:
        raise InputError(
            f"gallery {place} was filled by a {held['precision']} model, this one is "
            f"{spec.precision}; set gallery.mix_precisions=true to allow it, or use another "
            "gallery.folder"
        )
