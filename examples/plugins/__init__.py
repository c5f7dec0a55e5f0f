"""Layers of your own; docs/plugins.md walks through them."""
