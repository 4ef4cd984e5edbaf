"""Finds near-duplicates: recordings that are the same music, though their bytes differ."""
