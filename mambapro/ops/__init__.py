"""The selective-scan operator in PyTorch."""
