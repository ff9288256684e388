"""What a network attends to in an image, and what its patch features tell apart, as pictures."""
