"""Measuring what a backbone has learnt."""
