"""Scores: what is sung in them, when, and at which pitch."""
