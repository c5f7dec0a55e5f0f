"""Convolution with plain multiply-adds, and what all CUDA convolution families share."""
