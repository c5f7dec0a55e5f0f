"""The k best of each row on GPUs."""
