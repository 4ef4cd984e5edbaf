"""What models expect of tags and lyrics. Knows nothing of files, shards or trainers."""
