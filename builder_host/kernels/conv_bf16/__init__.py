"""Convolution of bfloat16 tensors with float32 sums."""
