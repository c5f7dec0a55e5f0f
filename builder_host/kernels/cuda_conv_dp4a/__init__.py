"""Convolution of 8-bit tensors by dot products of four bytes."""
