"""Detection output of SSD on GPUs."""
