"""Hugging Face datasets as sources of images: on disk or by name."""
