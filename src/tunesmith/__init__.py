"""Tunesmith: self-hosted fine-tuning through the API your code already speaks."""

__version__ = "0.1.0"
