"""Sign a plan with a private key, in place or into another file.

A board takes no release number below the highest that was good there, and no plan after its last
day; both are part of what is signed.
"""

from __future__ import annotations

import argparse
import json

from planformat.reader import read_plan
from planformat.release import Release, release_of
from planformat.signing import key_id, load_private_key, public_key_of
from planformat.writer import sign_plan, write_atomically


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("plan", metavar="PLAN", help="PLAN file")
    parser.add_argument("--key", metavar="KEY", required=True, help="private key file")
    parser.add_argument("-o", "--output", metavar="OUT", help="signed plan (default: replace PLAN)")
    parser.add_argument("--release", type=int, metavar="N", help="release number that it states")
    parser.add_argument("--expires", metavar="YYYY-MM-DD", help="last day of validity, UTC")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    private_key = load_private_key(args.key)
    with open(args.plan, "rb") as file:
        data = file.read()
    output = args.output or args.plan
    release = _release(args, data)
    signed = sign_plan(data, private_key, source=args.plan, release=release)
    write_atomically(output, [signed])
    identity = key_id(public_key_of(private_key)).hex()
    if args.json:
        print(json.dumps({"plan": output, "key_id": identity}))
    else:
        print(f"{output}: signed with key {identity}")
    return 0


def _release(args: argparse.Namespace, data: bytes) -> Release | None:
    """What the plan shall state; what is not given stays as it is."""
    if args.release is None and args.expires is None:
        return None
    old = release_of(read_plan(data, source=args.plan))
    return Release(
        old.number if args.release is None else args.release,
        old.expires if args.expires is None else args.expires,
    )
