"""Write part of a timing database into a file: one device, one family, or without failures."""

from __future__ import annotations

import argparse
import json

from builder_host.errors import TimingCacheError
from builder_host.targets.target import target_fingerprint
from builder_host.tune.timing_cache import TimingCache, digest, load_timing_cache
from planformat.fingerprint import fingerprint_to_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("database", metavar="DATABASE", help="timing cache")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="file to write")
    parser.add_argument("--device", metavar="ID", help="fingerprint id, from 'edgeplan tune stats'")
    parser.add_argument("--target", help="board name or fingerprint file, instead of --device")
    parser.add_argument("--family", help="kernel family, e.g. conv_direct")
    parser.add_argument("--no-failures", action="store_true", help="leave out what could not run")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    device = _device(args)
    cache = load_timing_cache(args.database)
    chosen = {
        key: timing
        for key, timing in cache
        if (device is None or key.fingerprint.startswith(device))
        and (args.family is None or key.tactic.partition("(")[0] == args.family)
        and not (args.no_failures and timing.median_us is None)
    }
    if not chosen:
        raise TimingCacheError(
            f"{args.database}: none of {len(cache):,} records fits; see: edgeplan tune stats "
            f"{args.database}"
        )
    TimingCache(chosen).save(args.output)
    if args.json:
        print(json.dumps({"output": args.output, "records": len(chosen)}))
    else:
        print(f"{args.output}: {len(chosen):,} of {len(cache):,} records")
    return 0


def _device(args: argparse.Namespace) -> str | None:
    if args.device and args.target:
        raise TimingCacheError("--device and --target both name a device; use one of them")
    if args.target is None:
        device: str | None = args.device
        return device
    fingerprint = target_fingerprint(args.target)
    if fingerprint is None:
        raise TimingCacheError(
            f"target '{args.target}' states no fingerprint; write one with 'edgeplan probe --json'"
        )
    return digest(fingerprint_to_json(fingerprint))
