"""Examples that run on the data in tests/data."""
