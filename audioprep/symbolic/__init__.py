"""Scores and MIDI: reading, analysis (beats, chords, key), and tokens. Knows nothing of shards or parallelism."""
