"""Which patches of two images, or of two views of an image, a network takes for the same."""
