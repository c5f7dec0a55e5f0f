"""Kernels of plugins on the CPU."""
