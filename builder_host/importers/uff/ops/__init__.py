"""One UFF operation per module."""
