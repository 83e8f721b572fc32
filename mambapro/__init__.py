"""MambaPro: the network and what training, export, calibration and runtime share."""

__version__ = "0.1.0"
