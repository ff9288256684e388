"""Tar shards made from any DATA: smaller images in few files, or the same bytes in few files."""
