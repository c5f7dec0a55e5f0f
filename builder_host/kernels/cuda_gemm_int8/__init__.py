"""Products of 8-bit matrices with constant weights."""
