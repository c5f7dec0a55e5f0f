"""Convolution of 8-bit tensors with exact int32 sums."""
