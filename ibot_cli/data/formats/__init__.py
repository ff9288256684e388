"""File formats that need more than Pillow, and pixels of any number of bands and 16 bits."""
