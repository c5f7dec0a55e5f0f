"""Print a board's fingerprint, and with --compare how it differs from another one.

What --json prints goes to 'edgeplan build --target'.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from boards.cli._linking import KEY_VARIABLE, LINK_HELP, open_link
from boards.errors import BoardError
from boards.spec import load_board
from planformat.fingerprint import (
    DeviceFingerprint,
    compare,
    describe_differences,
    fingerprint_from_json,
    fingerprint_to_json,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("--link", metavar="LINK", help=f"{LINK_HELP} (default: this machine)")
    parser.add_argument("--link-key", metavar="FILE", help=f"key (default: ${KEY_VARIABLE})")
    parser.add_argument("--patience", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cpu", metavar="D", help="cpu (default), cuda, cuda:1")
    parser.add_argument(
        "--compare", metavar="OTHER", help="board name or fingerprint file that it should satisfy"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command. Exit status 1 when --compare finds a difference."""
    wanted = _other(args.compare) if args.compare else None
    with tempfile.TemporaryDirectory() as folder:
        args.link = args.link or f"store://{folder}/store"
        with open_link(args) as link:
            fields = link.call("probe", {"device": args.device}, timeout_s=120).fields
    live = DeviceFingerprint(str(fields["device_kind"]), dict(fields["fields"]))
    differences = compare(wanted, live) if wanted is not None else ()
    if wanted is None:
        if args.json:
            print(fingerprint_to_json(live), end="")
        else:
            print(f"device_kind: {live.device_kind}")
            for name in sorted(live.fields):
                print(f"{name}: {live.fields[name]}")
        return 0
    if args.json:
        rows = [
            {"field": d.field, "wanted": d.plan_value, "device": d.device_value, "why": d.why}
            for d in differences
        ]
        print(json.dumps({"differences": rows}))
    elif differences:
        print(f"{len(differences)} fields differ from {args.compare}:")
        print(describe_differences(differences).replace("the plan has", "wanted is"))
    else:
        print(f"the device satisfies {args.compare}")
    return 1 if differences else 0


def _other(text: str) -> DeviceFingerprint:
    path = Path(text)
    if path.is_file():
        return fingerprint_from_json(path.read_text(encoding="utf-8"), source=text)
    board = load_board(text)
    if board.is_probed:
        raise BoardError(f"board '{text}' states no fingerprint; compare with a probed file")
    return DeviceFingerprint(board.device_kind, board.fingerprint)
