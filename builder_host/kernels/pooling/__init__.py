"""Max and average pooling over blocked tensors."""
