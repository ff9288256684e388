"""Patterns: the patches that a network puts into the same prototype."""
