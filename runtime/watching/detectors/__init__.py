"""Detectors: from the pictures of a rig to boxes. docs/detectors.md says how to bring another."""
