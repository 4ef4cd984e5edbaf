"""Samples to tokens, latents or embeddings. Knows nothing of files, shards or parallelism."""
