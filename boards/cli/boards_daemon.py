"""Start, stop or restart the serving daemon of a board, or ask whether it is active."""

from __future__ import annotations

import argparse
import json

from boards.cli._linking import add_link_arguments, open_link


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("action", choices=("start", "stop", "restart", "is-active"))
    add_link_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    with open_link(args) as link:
        text = link.call("daemon", {"action": args.action}).fields["text"]
    print(json.dumps({"action": args.action, "text": text}) if args.json else text or "done")
    return 0
