"""Fully connected layers and matrix products of bfloat16 tensors."""
