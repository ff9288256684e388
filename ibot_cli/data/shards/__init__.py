"""Images in tar files, read at random without unpacking: the layout of WebDataset."""
