"""Write a folder of plans to carry to boards without a network, on a USB stick for example.

On the board: edgeplan deploy FOLDER --to store:///var/lib/edgeplan --activate
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from boards.bundle import write_bundle
from boards.errors import StoreError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("plans", metavar="[NAME=]PLAN", nargs="+", help="plans to take along")
    parser.add_argument("-o", "--output", metavar="FOLDER", required=True, help="folder to make")
    parser.add_argument("--wheels", metavar="DIR", help="packages for the board to take along")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    plans: dict[str, Path] = {}
    for text in args.plans:
        name, equals, path = text.partition("=")
        file = Path(path if equals else text)
        name = name if equals else file.stem
        if name in plans:
            raise StoreError(f"two plans are named '{name}'; name them: NAME=PLAN")
        plans[name] = file
    write_bundle(Path(args.output), plans, Path(args.wheels) if args.wheels else None)
    total = sum(path.stat().st_size for path in plans.values())
    if args.json:
        print(json.dumps({"folder": args.output, "plans": sorted(plans), "bytes": total}))
    else:
        print(f"{args.output}: {len(plans)} plans, {total:,} bytes; its README.txt says the rest")
    return 0
