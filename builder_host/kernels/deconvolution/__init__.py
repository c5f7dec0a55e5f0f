"""Deconvolution over blocked tensors."""
