"""Take the weights out of a plan, to put them in again with 'edgeplan refit'.

What is left has everything else: code, steps, and the hashes of what is missing. No device runs it.
The signature of a signed plan stays: 'edgeplan verify --key' checks it, and it holds again when the
same weights are back.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from planformat.details import plan_details
from planformat.stripped import read_stripped, strip_plan
from planformat.writer import write_atomically
from runtime_edge.cli import CommandError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("plan", metavar="PLAN", help="PLAN file with its weights")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="file to write")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    data = strip_plan(Path(args.plan).read_bytes(), source=args.plan)
    stripped = read_stripped(data, source=args.plan)
    details = plan_details(stripped.plan, source=args.plan)
    if details is None or details.recipe is None:
        raise CommandError(
            f"plan {args.plan}: does not say what it was built from, so that nothing could put the "
            "weights in again; build it again with this version"
        )
    files = details.recipe.files
    write_atomically(args.output, [data])
    if args.json:
        report = {
            "plan": args.output,
            "bytes": len(data),
            "stripped_bytes": stripped.weights_bytes,
            "needs": [
                {"name": file.name, "bytes": file.num_bytes, "sha256": file.sha256}
                for file in files
            ],
        }
        print(json.dumps(report))
        return 0
    print(f"wrote {args.output} ({len(data):,} B), without {stripped.weights_bytes:,} B of weights")
    for file in files:
        print(f"needs {file.name} ({file.num_bytes:,} B, SHA-256 {file.sha256})")
    return 0
