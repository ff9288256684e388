"""Weighted-vote nearest neighbours."""
