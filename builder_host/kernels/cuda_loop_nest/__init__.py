"""Generated loop nests on GPUs: every layer kind without a hand-made CUDA kernel."""
