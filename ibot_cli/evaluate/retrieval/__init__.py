"""Nearest images, duplicates and average precision."""
