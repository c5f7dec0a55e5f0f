"""Print the fingerprint of this device."""

from __future__ import annotations

import argparse

from planformat.fingerprint import fingerprint_to_json
from runtime_edge.probe import probe_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command has no arguments of its own."""
    del parser


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    fingerprint = probe_device()
    if args.json:
        print(fingerprint_to_json(fingerprint), end="")
        return 0
    print(f"device_kind: {fingerprint.device_kind}")
    for name in sorted(fingerprint.fields):
        print(f"{name}: {fingerprint.fields[name]}")
    return 0
