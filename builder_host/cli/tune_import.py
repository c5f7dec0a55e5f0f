"""Take timings of other files over into a database, which is made if it is not there."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from builder_host.tune.timing_cache import TimingCache, load_timing_cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("database", metavar="DATABASE", help="timing cache to extend")
    parser.add_argument("files", metavar="FILE", nargs="+", help="timing caches to take over")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    has_database = Path(args.database).exists()
    cache = load_timing_cache(args.database) if has_database else TimingCache()
    before = len(cache)
    changed = sum(cache.merge(load_timing_cache(path)) for path in args.files)
    cache.save(args.database)
    new = len(cache) - before
    if args.json:
        report = {"database": args.database, "records": len(cache), "new": new}
        print(json.dumps({**report, "replaced": changed - new}))
    else:
        print(
            f"{args.database}: {len(cache):,} records, {new:,} of them new, "
            f"{changed - new:,} replaced by better ones"
        )
    return 0
