"""Winograd convolution, 3x3 with stride 1."""
