"""Let a board go back to the release before; the active one is marked bad."""

from __future__ import annotations

import argparse
import json

from boards.cli._linking import add_link_arguments, open_link


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("name", help="of the plan on the board")
    add_link_arguments(parser)
    parser.add_argument("--reason", default="asked for by a host", help="kept in the record")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    with open_link(args) as link:
        # not `link.call`: a second try would go back twice
        answer = link.client.call("roll_back", {"name": args.name, "reason": args.reason})
    active = answer.fields["active"]
    if args.json:
        print(json.dumps({"name": args.name, "active": active}))
    else:
        print(f"'{args.name}': {active or 'nothing'} is active")
    return 0
