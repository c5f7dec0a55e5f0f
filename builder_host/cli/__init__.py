"""Commands of the builder, one per module."""
