"""Supervised fine-tuning of pre-trained weights: plan, loop and result."""
