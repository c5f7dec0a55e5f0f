"""Ways to move bytes, one module per scheme."""
