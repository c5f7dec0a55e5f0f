"""Fully connected layers and batched matrix products."""
