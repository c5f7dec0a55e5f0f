"""Merge timing databases into a new one; the order of the files does not matter.

Where two have the same key, a success wins over a failure, then more repeats, then the lower time.
"""

from __future__ import annotations

import argparse
import json

from builder_host.tune.timing_cache import TimingCache, load_timing_cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("databases", metavar="FILE", nargs="+", help="timing caches")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="file to write")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    cache = TimingCache()
    counts = {path: cache.merge(load_timing_cache(path)) for path in args.databases}
    cache.save(args.output)
    if args.json:
        print(json.dumps({"output": args.output, "records": len(cache), "taken": counts}))
    else:
        for path, count in counts.items():
            print(f"{path}: {count:,} records new or better")
        print(f"{args.output}: {len(cache):,} records")
    return 0
