"""The run directory: lock, atomic checkpoints, metrics."""
