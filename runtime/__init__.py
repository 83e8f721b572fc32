"""Programs that run on a camera box; never import torch."""
