"""Kernels of plugins on CUDA."""
