"""Targets: devices that plans are built for, and what each device kind adds to a build."""
