"""The memory-mapped cache of features."""
