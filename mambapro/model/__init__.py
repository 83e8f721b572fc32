"""The network. Shape alphabet of its comments and docstrings.

B batch; M = 3 modalities in the order rgb, nir, tir; P = gh * gw patches; T tokens of a block;
L scan length; D channels; N state size; K prompts a slot; H, W pixels. Stacked tensors are
modality-major: row ``m * B + b`` is modality m of batch item b.
"""
