"""Devices: what an engine needs from the hardware, one module per kind."""
