"""Kernel family `recurrent` (CPU)."""
