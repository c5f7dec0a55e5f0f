"""Bring a plan to a board: only what it lacks travels, it is checked there, the switch is atomic.

PLAN may also be a folder of 'edgeplan bundle'; its plans are deployed under their names.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from boards.bundle import read_bundle
from boards.cli._linking import add_link_arguments, open_link
from boards.deploy import Deployment, deploy


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("plan", metavar="PLAN", help="PLAN file, or folder of 'edgeplan bundle'")
    add_link_arguments(parser, "--to")
    parser.add_argument("--name", help="under which the board keeps it (default: the file's name)")
    parser.add_argument(
        "--activate", action="store_true", help="switch to it when every check has passed"
    )
    parser.add_argument(
        "--trial",
        metavar="S",
        type=float,
        help="with --activate: go back after S seconds unless it is marked good on the board "
        "(0: after three resets)",
    )
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="FIELD",
        help="fingerprint field that may differ (board.* names a group)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    path = Path(args.plan)
    plans = read_bundle(path) if path.is_dir() else {args.name or path.stem: path}
    reports = []
    with open_link(args) as link:
        for name, file in plans.items():
            done = deploy(
                link,
                file,
                name,
                is_activated=args.activate,
                trial_s=args.trial,
                allow=args.allow,
                progress=None if args.json else _show,
                tell=None if args.json else _tell,
            )
            reports.append(_report(done))
            if not args.json:
                print(_text(done))
    if args.json:
        print(json.dumps(reports[0] if not path.is_dir() else {"plans": reports}))
    return 0


def _show(done: int, total: int) -> None:
    end = "\n" if done == total else ""
    print(f"\rpieces {done}/{total}", end=end, file=sys.stderr, flush=True)


def _tell(step: str) -> None:
    print(f"passed: {step}", file=sys.stderr)


def _report(done: Deployment) -> dict[str, Any]:
    return {
        "name": done.name,
        "release": done.release,
        "sha256": done.sending.sha256,
        "file_bytes": done.sending.size_bytes,
        "pieces": done.sending.num_pieces,
        "pieces_sent": done.sending.num_sent,
        "sent_bytes": done.sending.sent_bytes,
        "link_losses": done.sending.num_losses,
        "pieces_resent": done.sending.num_resent,
        "resent_bytes": done.sending.resent_bytes,
        "pieces_received": done.sending.num_received,
        "received_bytes": done.sending.received_bytes,
        "checks": list(done.steps),
        "latency_us": done.checked_us,
        "built_latency_us": done.built_us,
        "notes": list(done.notes),
        "active": done.is_active,
        "previous": done.previous,
    }


def _text(done: Deployment) -> str:
    sending = done.sending
    lines = [
        f"'{done.name}' release {done.release}: {sending.num_sent} of {sending.num_pieces} pieces "
        f"travelled, {sending.sent_bytes:,} of {sending.size_bytes:,} bytes; "
        f"checked: {', '.join(done.steps)}",
    ]
    if sending.num_losses:
        lines.append(
            f"the link was lost {sending.num_losses} times; {sending.num_resent} pieces, "
            f"{sending.resent_bytes:,} bytes, had to travel again"
        )
    if done.checked_us is not None:
        built = f", {done.built_us:,.1f} µs at build" if done.built_us else ""
        lines.append(f"latency {done.checked_us:,.1f} µs{built}")
    lines += [f"note: {note}" for note in done.notes]
    if done.is_active:
        lines.append("it is active" + (f"; before: {done.previous}" if done.previous else ""))
    else:
        lines.append(
            f"not active yet: edgeplan boards activate {done.name} {done.release} --link ..."
        )
    return "\n".join(lines)
