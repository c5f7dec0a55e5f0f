"""Show what timing databases hold: devices, toolchains, families, failures, dispersion."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from builder_host.tune.statistics import database_groups
from builder_host.tune.timing_cache import TimingCache, load_timing_cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("database", metavar="FILE", nargs="+", help="timing cache; several merge")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    cache = TimingCache()
    for path in args.database:
        cache.merge(load_timing_cache(path))
    groups = database_groups(cache)
    if args.json:
        print(json.dumps({"records": len(cache), "groups": [asdict(group) for group in groups]}))
        return 0
    print(f"{len(cache):,} records")
    for group in groups:
        spread = "unknown" if group.dispersion is None else f"{group.dispersion:.1%}"
        print(f"device {group.fingerprint}, {group.conditions}\n  {group.toolchain}")
        print(
            f"  {group.num_records:,} candidates of {group.num_problems - group.num_plans:,} "
            f"problems, {group.num_plans} plans, {group.num_failed:,} failed; spread of repeats "
            f"(80th to 20th percentile, median): {spread}; conditions noted: {group.observed:,}"
        )
        print("  " + ", ".join(f"{name} {count:,}" for name, count in group.families.items()))
    return 0
