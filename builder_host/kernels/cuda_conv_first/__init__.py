"""Convolution of an image with at most four channels."""
