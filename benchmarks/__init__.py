"""Measurements: each compares in one run and writes JSON; README's tables are made from it."""
