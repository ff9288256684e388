"""What is in a set of images: sizes, formats, channels, damaged files, duplicates."""
