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
    add_key_arguments(parser)


def add_key_arguments(parser: argparse.ArgumentParser, *, patience_s: float = 60.0) -> None:
    """The key of a link, and for how long a lost board is looked for."""
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
        default=patience_s,
        help=f"seconds for which a lost board is looked for (default {patience_s:g})",
    )


def open_link(args: argparse.Namespace) -> BoardLink:
    """The link that the arguments name; it connects when it is first used."""
    return BoardLink(args.link, link_options(args), patience_s=args.patience)


def link_options(args: argparse.Namespace) -> LinkOptions:
    """Key of the arguments; what a board logs goes to standard error."""
    key = read_link_key(args.link_key) if args.link_key else None
    return LinkOptions(key, log_line=lambda line: print(line, file=sys.stderr))
