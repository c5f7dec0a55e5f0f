"""Make a key pair: NAME.key (private, for sign) and NAME.pub (public, for boards)."""

from __future__ import annotations

import argparse
import json
import os

from planformat.signing import (
    generate_key,
    key_id,
    public_key_of,
    save_private_key,
    save_public_key,
)
from runtime_edge.cli import CommandError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("name", metavar="NAME", help="path of both files, without ending")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    private_path, public_path = f"{args.name}.key", f"{args.name}.pub"
    for path in (private_path, public_path):
        if os.path.exists(path):
            raise CommandError(f"{path} exists already and is not overwritten; choose another name")
    private_key = generate_key()
    public_key = public_key_of(private_key)
    save_private_key(private_key, private_path)
    save_public_key(public_key, public_path)
    identity = key_id(public_key).hex()
    if args.json:
        print(json.dumps({"private": private_path, "public": public_path, "key_id": identity}))
    else:
        print(f"private key: {private_path} (keep it secret)")
        print(f"public key:  {public_path}")
        print(f"key id:      {identity}")
    return 0
