"""Print a board's fingerprint, and with --compare how it differs from another one.

What --json prints goes to 'edgeplan build --target'.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from boards.cli._linking import LINK_HELP, add_key_arguments, link_options
from boards.errors import BoardError
from boards.link.file_transfer import BoardLink
from boards.spec import load_board
from planformat.fingerprint import (
    FIELD_RULES,
    DeviceFingerprint,
    FieldDifference,
    compare,
    describe_differences,
    fingerprint_from_json,
    fingerprint_to_json,
)

_PROBE_TIMEOUT_S = 120.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("--link", metavar="LINK", help=f"{LINK_HELP} (default: this machine)")
    add_key_arguments(parser, patience_s=0.0)
    parser.add_argument("--device", default="cpu", metavar="D", help="cpu (default), cuda, cuda:1")
    parser.add_argument(
        "--compare",
        metavar="OTHER",
        help="what it should satisfy: a board's name, a fingerprint file, or the link of a board",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command. Exit status 1 when --compare finds that it does not satisfy the other."""
    wanted = _other(args) if args.compare else None
    live = _probed(args, args.link)
    if wanted is None:
        if args.json:
            print(fingerprint_to_json(live), end="")
        else:
            print(f"device_kind: {live.device_kind}")
            for name in sorted(live.fields):
                print(f"{name}: {live.fields[name]}")
        return 0
    differences = compare(wanted, live)
    harmless = _harmless(wanted, live, differences)
    if args.json:
        rows = [
            {
                "field": d.field,
                "wanted": d.plan_value,
                "device": d.device_value,
                "why": d.why,
                "do": d.what_to_do,
            }
            for d in differences
        ]
        print(json.dumps({"differences": rows, "harmless": harmless}))
        return 1 if differences else 0
    if differences:
        count = len(differences)
        print(f"{count} field{'s differ' if count != 1 else ' differs'} from {args.compare}:")
        print(describe_differences(differences).replace("the plan has", "wanted is"))
    else:
        print(f"the device satisfies {args.compare}")
    for row in harmless:
        wish = f"wanted is '{row['wanted']}'" if row["wanted"] is not None else "nothing is wanted"
        print(f"  {row['field']}: {wish}, the device has '{row['device']}': {row['why']}")
    return 1 if differences else 0


def _probed(args: argparse.Namespace, link: str | None) -> DeviceFingerprint:
    """Fingerprint of the device of a board; no link: of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        address = link or f"store://{folder}/store"
        with BoardLink(address, link_options(args), patience_s=args.patience) as board:
            fields = board.call("probe", {"device": args.device}, timeout_s=_PROBE_TIMEOUT_S).fields
    return DeviceFingerprint(str(fields["device_kind"]), dict(fields["fields"]))


def _other(args: argparse.Namespace) -> DeviceFingerprint:
    text = args.compare
    if "://" in text:
        return _probed(args, text)
    path = Path(text)
    if path.is_file():
        return fingerprint_from_json(path.read_text(encoding="utf-8"), source=text)
    board = load_board(text)
    if board.is_probed:
        raise BoardError(f"board '{text}' states no fingerprint; compare with a probed file")
    return DeviceFingerprint(board.device_kind, board.fingerprint)


def _harmless(
    wanted: DeviceFingerprint, live: DeviceFingerprint, differences: tuple[FieldDifference, ...]
) -> list[dict[str, Any]]:
    """Fields that are not the same and stand in nobody's way, and why not."""
    failing = {difference.field for difference in differences}
    rows = []
    for name in sorted(live.fields):
        wish = wanted.fields.get(name)
        if name in failing or wish == live.fields[name]:
            continue
        why = f"{FIELD_RULES[name].rule.value} is enough" if wish is not None else "not compared"
        rows.append({"field": name, "wanted": wish, "device": live.fields[name], "why": why})
    return rows
