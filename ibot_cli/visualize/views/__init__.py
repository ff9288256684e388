"""What training sees: the views and masks of a recipe."""
