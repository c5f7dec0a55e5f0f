"""Convolution on tensor cores with the maximum of 2x2 windows behind it."""
