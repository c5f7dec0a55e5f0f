"""Softmax along contiguous memory on GPUs."""
