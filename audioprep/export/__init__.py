"""The exact layouts that upstream trainers read, made from shard sets. Knows nothing of models."""
