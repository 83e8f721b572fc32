"""Checkpoint to model file, and model file against checkpoint."""
