"""Benchmarks: every script prints a table, and JSON on request."""
