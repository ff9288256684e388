"""Images in: sources, decoding, crops, augmentation, loading."""
