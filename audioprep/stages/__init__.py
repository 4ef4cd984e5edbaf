"""One module a pipeline step: items in, columns out. Knows nothing of how it is scheduled."""
