"""The files on disk: write, index, verify, read. Knows nothing of models."""
