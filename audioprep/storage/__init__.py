"""Local paths and URLs, read and written alike."""
