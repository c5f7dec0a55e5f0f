"""Fully connected layers and matrix products of 8-bit tensors."""
