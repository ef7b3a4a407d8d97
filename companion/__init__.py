"""Trained to Predict: the companion package."""

__version__ = "0.1.0"
