"""What there is: finds inputs and reads the text beside them. Knows nothing of samples or models."""
