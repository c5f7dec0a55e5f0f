"""Compare two plans: device, tactics, layouts, times, weights, code, origin."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edgeplan diff`."""
    parser.add_argument("first", metavar="A.plan")
    parser.add_argument("second", metavar="B.plan")
    parser.add_argument("--json", action="store_true", help="print the differences as JSON")


def run(args: argparse.Namespace) -> int:
    """Compare. Returns 0 when the plans say the same, else 1."""
    from builder_host.inspection.difference import plan_differences
    from planformat.reader import open_plan

    with open_plan(args.first) as first, open_plan(args.second) as second:
        found = plan_differences(first.plan, second.plan, (args.first, args.second))
    if args.json:
        print(json.dumps([asdict(difference) for difference in found], ensure_ascii=False))
    else:
        for item in found:
            print(f"{item.subject}: {item.first or '(none)'} -> {item.second or '(none)'}")
        if not found:
            print("no differences")
    return 1 if found else 0
