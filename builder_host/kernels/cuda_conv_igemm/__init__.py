"""Convolution on tensor cores."""
