"""Direct convolution on blocked tensors."""
