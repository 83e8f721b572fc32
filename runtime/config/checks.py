"""What settings are held to."""

from __future__ import annotations

from mambapro.cli import InputError


def positive(name: str, value: float) -> None:
    """Raise InputError unless the setting ``name`` is over 0."""
    if not value > 0:
        raise InputError(f"{name} must be over 0, got {value}")


def within(name: str, value: float | None, least: float, most: float = float("inf")) -> None:
    """Raise InputError unless the setting ``name`` is none or from ``least`` to ``most``."""
    if value is not None and not least <= value <= most:
        legal = f"from {least:g} to {most:g}" if most < float("inf") else f"at least {least:g}"
        raise InputError(f"{name} must be {legal}, got {value:g}")
