"""Shard sets to the Hugging Face Hub and from it."""
