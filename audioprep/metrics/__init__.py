"""What embeddings say of sets of recordings: the Fréchet audio distance and the CLAP score."""
