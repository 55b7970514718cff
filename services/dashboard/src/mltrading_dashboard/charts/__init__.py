"""Figures: frame in, plain dict out. No store, no clock, no page."""
