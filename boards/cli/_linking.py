"""Arguments and steps that the commands share that reach a board."""

from __future__ import annotations

import argparse
import os
import sys

from boards.link.client import LinkOptions
from boards.link.file_transfer import BoardLink
from boards.link.key_file import read_link_key

KEY_VARIABLE = "EDGEPLAN_LINK_KEY"
LINK_HELP = (
    "serial:///dev/ttyUSB0?baud=921600, tcp://HOST:PORT, ssh://USER@HOST, or "
    "store:///var/lib/edgeplan for this machine"
)


def add_link_arguments(parser: argparse.ArgumentParser, flag: str = "--link") -> None:
    """The link to a board and its key."""
    parser.add_argument(flag, dest="link", metavar="LINK", required=True, help=LINK_HELP)
    parser.add_argument(
        "--link-key",
        metavar="FILE",
        default=os.environ.get(KEY_VARIABLE),
        help=f"key of 'edgeplan link-key' (default: ${KEY_VARIABLE})",
    )
    parser.add_argument(
        "--patience",
        metavar="S",
        type=float,
        default=60.0,
        help="seconds for which a lost board is looked for (default 60)",
    )


def open_link(args: argparse.Namespace) -> BoardLink:
    """The link that the arguments name; it connects when it is first used."""
    key = read_link_key(args.link_key) if args.link_key else None
    options = LinkOptions(key, log_line=lambda line: print(line, file=sys.stderr))
    return BoardLink(args.link, options, patience_s=args.patience)
