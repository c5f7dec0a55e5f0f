"""Confirm the active release of a plan: its trial ends, older release numbers are refused."""

from __future__ import annotations

import argparse
import json

from boards.cli._linking import add_link_arguments, open_link


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("name", help="of the plan on the board")
    add_link_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    with open_link(args) as link:
        link.call("mark_good", {"name": args.name})
    print(json.dumps({"name": args.name, "good": True}) if args.json else f"'{args.name}': good")
    return 0
