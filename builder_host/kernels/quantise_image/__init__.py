"""Images of few channels from planes of floats to blocked 8-bit tensors."""
