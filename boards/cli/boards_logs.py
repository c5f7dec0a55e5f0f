"""Print what a board's agent has logged; with --follow also what it logs from now on."""

from __future__ import annotations

import argparse
import json
import time

from boards.cli._linking import add_link_arguments, open_link


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_link_arguments(parser)
    parser.add_argument("--lines", type=int, default=100, metavar="N", help="default 100")
    parser.add_argument("--follow", action="store_true", help="until interrupted")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    with open_link(args) as link:
        fields = {"lines": args.lines, "follow": args.follow}
        lines = link.call("logs", fields).fields["lines"]
        print(json.dumps({"lines": lines}) if args.json else "\n".join(lines), flush=True)
        while args.follow:
            time.sleep(2.0)  # lines are printed by the link; this notices its loss
            link.client.call("ping")
    return 0
