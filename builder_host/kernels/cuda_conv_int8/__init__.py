"""Convolution of 8-bit tensors on tensor cores, exact int32 sums."""
