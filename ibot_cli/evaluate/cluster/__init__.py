"""Clusters of images and what they agree with."""
