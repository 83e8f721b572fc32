"""Bring the cameras of a rig to one clock, and their frames together."""
