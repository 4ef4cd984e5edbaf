"""Cuts a corpus into parts, runs stages over them, retries, commits, resumes. Knows not what a stage does."""
