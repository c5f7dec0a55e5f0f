"""Frozen TensorFlow graphs: made into UFF nodes in memory, then imported by the UFF importer."""
