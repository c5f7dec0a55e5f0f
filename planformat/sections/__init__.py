"""One module per section kind: encode, decode and own checks."""
