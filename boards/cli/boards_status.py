"""What runs on a board: plans, releases, latency, notes, conditions."""

from __future__ import annotations

import argparse
import json
from typing import Any

from boards.cli._linking import add_link_arguments, open_link
from boards.conditions import conditions_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_link_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    with open_link(args) as link:
        board = dict(link.call("identify").fields)
        status = {"transfers": [], **link.call("status").fields}  # earlier agents name none
    board.pop("id", None)
    board.pop("ok", None)
    if args.json:
        told = {key: status[key] for key in ("plans", "transfers", "conditions")}
        print(json.dumps({**board, **told}))
        return 0
    print(f"{board['host']} ({board['model'] or board['architecture']}), {board['software']}")
    print(f"store {board['store']}: {board['free_bytes']:,} bytes free; clock {board['utc']}")
    print(f"conditions: {conditions_text(status['conditions'])}")
    for row in status["transfers"]:
        print(
            f"transfer {row['sha256'][:16]}: {row['missing']} of {row['pieces']} pieces are "
            f"missing; {row['received']} came over the link, {row['received_bytes']:,} bytes"
        )
    if not status["plans"]:
        print("no plan was deployed")
    for plan in status["plans"]:
        print(f"{plan['name']}: releases from number {plan['floor']} on are taken")
        for release in plan["releases"]:
            print("  " + _row(plan, release))
    return 0


def _row(plan: dict[str, Any], release: dict[str, Any]) -> str:
    marks = {plan["active"]: "active  ", plan["previous"]: "previous"}
    parts = [
        f"{marks.get(release['release_id'], '        ')} {release['release_id']}",
        f"{release['state']:7}",
        f"network {release['network']}" if release["network"] else "",
        f"number {release['number']}" if release["number"] else "",
        f"until {release['expires']}" if release["expires"] else "",
        f"{release['checked_us']:,.1f} µs" if release["checked_us"] else "",
        f"({release['built_us']:,.1f} at build)" if release["built_us"] else "",
        release["reason"],
    ]
    return "  ".join([part for part in parts if part] + [f"note: {n}" for n in release["notes"]])
