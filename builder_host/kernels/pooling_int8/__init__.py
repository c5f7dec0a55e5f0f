"""Pooling of 8-bit tensors on blocked formats."""
