"""Print the fingerprint of this device.

That is the CPU that the command runs on, or with --device one of its GPUs.
"""

from __future__ import annotations

import argparse

from planformat.fingerprint import DeviceFingerprint, fingerprint_to_json
from runtime_edge.cli import CommandError
from runtime_edge.device.select import parse_device
from runtime_edge.probe import probe_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "--device", default="cpu", metavar="D", help="cpu (default), cuda, cuda:1 and so on"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    fingerprint = _probe(args.device)
    if args.json:
        print(fingerprint_to_json(fingerprint), end="")
        return 0
    print(f"device_kind: {fingerprint.device_kind}")
    for name in sorted(fingerprint.fields):
        print(f"{name}: {fingerprint.fields[name]}")
    return 0


def _probe(text: str) -> DeviceFingerprint:
    try:
        kind, number = parse_device(text)
    except ValueError as error:
        raise CommandError(f"--device: {error}") from error
    if kind == "cpu":
        return probe_device()
    from runtime_edge.device.cuda_probe import probe_gpu

    return probe_gpu(number)
