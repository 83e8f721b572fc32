"""Synthetic persons, vehicles and scenes, seen by a visible, a NIR and a thermal camera."""

from mambapro.synthetic.datasets import write_dataset
from mambapro.synthetic.scenes import write_scene

__all__ = ["write_dataset", "write_scene"]
