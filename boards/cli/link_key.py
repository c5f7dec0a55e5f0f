"""Make a key for links to boards.

Both ends take its file with --link-key; without a key an agent listens on loopback addresses only.
"""

from __future__ import annotations

import argparse
import hashlib
import json

from boards.link.key_file import write_link_key


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("file", metavar="FILE", help="new file; copy it to both ends, mode 600")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    key = write_link_key(args.file)
    name = hashlib.sha256(key).hexdigest()[:16]
    if args.json:
        print(json.dumps({"file": args.file, "key_id": name}))
    else:
        print(f"{args.file}: link key {name}; copy it to both ends and keep it secret")
    return 0
