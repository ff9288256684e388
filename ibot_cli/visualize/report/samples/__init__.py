"""Sections of a report that show images: patterns, attention, and the nearest neighbours of some images."""
