"""Switch a board to a release that it has checked."""

from __future__ import annotations

import argparse
import json

from boards.cli._linking import add_link_arguments, open_link


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("name", help="of the plan on the board")
    parser.add_argument("release", help="id, from 'edgeplan boards status'")
    add_link_arguments(parser)
    parser.add_argument(
        "--trial",
        metavar="S",
        type=float,
        help="go back after S seconds unless it is marked good (0: after three resets)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    with open_link(args) as link:
        fields = {"name": args.name, "release": args.release, "trial_s": args.trial}
        previous = link.call("activate", fields).fields["previous"]
    if args.json:
        print(json.dumps({"name": args.name, "active": args.release, "previous": previous}))
    else:
        print(f"'{args.name}': {args.release} is active; before: {previous or 'nothing'}")
    return 0
