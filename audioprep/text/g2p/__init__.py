"""Lyrics to phonemes: Japanese, English, Portuguese, Spanish and Chinese, a line at a time."""
