"""Model files -> Network, one package per format."""
