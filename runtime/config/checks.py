"""What settings are held to."""

from __future__ import annotations

from mambapro.cli import InputError


def positive(name: str, value: float) -> None:
    """Raise InputError unless the setting ``name`` is over 0."""
    if not value > 0:
        raise InputError(f"{name} must be over 0, got {value}")
