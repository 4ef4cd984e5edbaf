"""Audio, scores and lyrics to token shards, and shards to trainers."""
