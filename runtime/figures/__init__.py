"""The figures of a run: counts, speed, and how right it was."""
