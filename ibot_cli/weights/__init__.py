"""Weights in: our own checkpoints and foreign layouts."""
