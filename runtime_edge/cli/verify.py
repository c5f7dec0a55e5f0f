"""Check a plan: layout, hashes, rules, with --key the signature, with --device the fingerprint."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from planformat.container import SectionKind
from planformat.errors import PlanStrippedError
from planformat.fingerprint import select_match
from planformat.reader import open_plan
from runtime_edge.cli import CommandError
from runtime_edge.cli._loading import read_public_key


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("plan", metavar="PLAN", help="PLAN file")
    parser.add_argument("--key", metavar="PUB", help="public key file; the plan must be signed")
    parser.add_argument(
        "--device", action="store_true", help="also: was it built for this very device?"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    public_key = read_public_key(args.key)
    try:
        return _verify(args, public_key)
    except PlanStrippedError:
        return _verify_stripped(args, public_key)


def _verify(args: argparse.Namespace, public_key: bytes | None) -> int:
    with open_plan(args.plan, public_key=public_key) as opened:
        is_signed = opened.container.find(SectionKind.SIGNATURE) is not None
        report = {
            "plan": args.plan,
            "name": opened.plan.name,
            "format": f"1.{opened.container.minor}",
            "file_bytes": opened.container.entries[-1].end,
            "signature": _signature(is_signed, public_key),
        }
        if args.device:
            from runtime_edge.device.select import choose_device

            report["variant"] = select_match(
                [variant.fingerprint for variant in opened.plan.variants],
                choose_device(opened.plan, None, source=args.plan).probe(),
                source=args.plan,
            )
    if args.json:
        print(json.dumps(report))
        return 0
    print(
        f"{args.plan}: sound, format {report['format']}, {report['file_bytes']:,} bytes, "
        f"signature: {report['signature']}"
        + (f", variant {report['variant']} is for this device" if args.device else "")
    )
    return 0


def _verify_stripped(args: argparse.Namespace, public_key: bytes | None) -> int:
    from planformat.stripped import read_stripped

    if args.device:
        raise CommandError(f"plan {args.plan}: its weights were stripped: it runs nowhere as it is")
    stripped = read_stripped(Path(args.plan).read_bytes(), public_key=public_key, source=args.plan)
    is_signed = stripped.container.find(SectionKind.SIGNATURE) is not None
    report = {
        "plan": args.plan,
        "name": stripped.plan.name,
        "format": f"1.{stripped.container.minor}",
        "file_bytes": stripped.container.entries[-1].end,
        "signature": _signature(is_signed, public_key),
        "stripped_weights_bytes": stripped.weights_bytes,
    }
    if args.json:
        print(json.dumps(report))
        return 0
    print(
        f"{args.plan}: sound, format {report['format']}, {report['file_bytes']:,} bytes, stripped "
        f"of {stripped.weights_bytes:,} bytes of weights, signature of the whole plan: "
        f"{report['signature']}"
    )
    return 0


def _signature(is_signed: bool, public_key: bytes | None) -> str:
    if not is_signed:
        return "none"
    return "present, not checked (no --key)" if public_key is None else "good"
