"""runtime_edge."""
