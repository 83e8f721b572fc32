"""Triplets of a split as tensors, from memory or disk, and the loaders over them."""
