"""Time the candidates of a tuning bundle on this device and write a timing cache.

The bundle comes from `edgeplan build ... --measure bundle:OUT.zip`; the file written here goes back
to `edgeplan build ... --timing-cache`. The builder is not needed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from planformat.fingerprint import compare, describe_differences
from planformat.writer import write_atomically
from runtime_edge.bundle import Bundle, BundleError, cache_text, read_bundle
from runtime_edge.cli import CommandError
from runtime_edge.device.select import open_device, parse_device
from runtime_edge.tuning import CpuTuneDevice, TuneDevice, tune


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("bundle", metavar="BUNDLE.zip")
    parser.add_argument("-o", "--output", required=True, metavar="TIMINGS.cache")
    parser.add_argument("--device", help="cuda:N or cpu (default: the bundle's kind, number 0)")
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="FIELD",
        help="fingerprint field that may differ from the bundle's (cuda.* for all of them)",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace TIMINGS.cache if it is there already"
    )
    parser.add_argument("--json", action="store_true", help="print counts as JSON")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if os.path.exists(args.output) and not args.force:
        raise CommandError(
            f"{args.output}: is there already and would lose its timings; name another file "
            "(on the host, 'edgeplan tune import' puts both into one), or give --force"
        )
    bundle = read_bundle(args.bundle)
    kind = bundle.fingerprint.device_kind
    name = args.device or kind
    if parse_device(name)[0] != kind:
        raise BundleError(f"{args.bundle}: holds {kind} candidates, --device is {name}")
    live = open_device(name).probe()
    differences = compare(bundle.fingerprint, live, allow=args.allow)
    if differences:
        raise BundleError(
            f"{args.bundle}: made for another device:\n{describe_differences(differences)}"
        )
    device = _tune_device(bundle, name)
    results = tune(device, bundle.jobs, _show if not args.json else None)
    write_atomically(args.output, [cache_text(bundle, results).encode()])
    failed = [result for result in results if result.median_us is None]
    counts = {"measured": len(results) - len(failed), "failed": len(failed)}
    if args.json:
        print(json.dumps({"output": args.output, **counts}))
    else:
        print(f"{args.output}: {counts['measured']} measured, {counts['failed']} failed")
        for error in sorted({result.error for result in failed})[:10]:
            print(f"  failed: {error}")
    return 0


def _tune_device(bundle: Bundle, name: str) -> TuneDevice:
    if bundle.fingerprint.device_kind == "cpu":
        return CpuTuneDevice(
            bundle.support, num_workers=bundle.num_workers, flush_bytes=bundle.flush_bytes
        )
    from runtime_edge.tuning_cuda import CudaTuneDevice

    return CudaTuneDevice(parse_device(name)[1], is_flushing=bundle.flush_bytes > 0)


def _show(done: int, total: int) -> None:
    print(f"\r{done}/{total}", end="", file=sys.stderr, flush=True)
