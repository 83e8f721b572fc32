"""PFA: a Parallel Feed-Forward Adapter beside the MLP of each block."""

from mambapro.model.layers import Bottleneck


class ParallelAdapter(Bottleneck):
    """``W2 QuickGELU(W1 x)`` on the un-normalised tokens; the block adds it to its MLP's output."""
