"""Weights out: into the forms that other programs open."""
