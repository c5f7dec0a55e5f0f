"""Rewrites of a network between import and lowering, in the order of pipeline.py."""
