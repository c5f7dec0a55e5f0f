"""builder_host."""
