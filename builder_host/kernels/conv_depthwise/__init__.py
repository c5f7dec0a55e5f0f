"""Depthwise convolution on blocked tensors."""
