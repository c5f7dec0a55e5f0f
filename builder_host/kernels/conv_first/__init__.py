"""Convolution of a row-major network input."""
