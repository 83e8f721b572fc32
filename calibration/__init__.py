"""Ranges, thresholds and registration from data; never imports torch."""
