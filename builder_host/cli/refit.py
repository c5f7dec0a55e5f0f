"""Put a model's weights into a plan: into a stripped one, or others into a whole one.

The model has the architecture that the plan was built from; nothing is compiled or timed. Weights
that the plan had before give back the same file, signature included. With others the canary is made
anew, and the old signature goes: sign with --sign, or later with 'edgeplan sign'.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from builder_host.plugins.registry import load_plugins
from planformat.signing import load_private_key
from planformat.writer import write_atomically

if TYPE_CHECKING:
    from builder_host.refit.refit import RefittedPlan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edgeplan refit`."""
    parser.add_argument("plan", metavar="PLAN", help="PLAN file, stripped or not")
    parser.add_argument(
        "model", metavar="MODEL", help="model.onnx, model.uff, graph.pb or deploy.prototxt"
    )
    parser.add_argument("weights", metavar="WEIGHTS", nargs="?", help="caffemodel")
    parser.add_argument("-o", "--output", metavar="OUT.plan", required=True, help="plan to write")
    parser.add_argument(
        "--identical",
        action="store_true",
        help="weights other than those that the plan was built with are an error",
    )
    parser.add_argument("--sign", metavar="KEY", help="private key file of 'edgeplan keygen'")
    parser.add_argument(
        "--plugins",
        action="append",
        default=[],
        metavar="F.py",
        help="as given to 'edgeplan build'; may be repeated",
    )
    parser.add_argument(
        "--no-check", action="store_true", help="skip the comparison with the float64 reference"
    )


def run(args: argparse.Namespace) -> int:
    """Refit the plan. Returns the exit status."""
    from builder_host.cli.progress import progress_display
    from builder_host.refit.model import import_for_plan
    from builder_host.refit.refit import open_refittable, refit_plan

    signing_key = load_private_key(args.sign) if args.sign is not None else None
    plugins = load_plugins(args.plugins) if args.plugins else None
    data = Path(args.plan).read_bytes()
    opened = open_refittable(data, source=args.plan)
    with progress_display(sys.stderr) as progress:
        progress("import", 0, 1)
        refitted = refit_plan(
            opened,
            import_for_plan(opened.plan, opened.recipe, args.model, args.weights, plugins=plugins),
            signing_key=signing_key,
            is_checked=not args.no_check,
            must_be_same=args.identical,
            progress=progress,
        )
    write_atomically(args.output, [refitted.data])
    if args.json:
        print(
            json.dumps(
                {
                    "plan": args.output,
                    "bytes": len(refitted.data),
                    "has_same_weights": refitted.is_same,
                    "lost_signature": refitted.lost_signature,
                    "accuracy": dict(refitted.accuracy),
                }
            )
        )
    else:
        print("\n".join(_lines(args.output, refitted)))
    return 0


def _lines(output: str, refitted: RefittedPlan) -> list[str]:
    lines = [
        f"output '{name}': relative L2 error {error:.3g} against float64"
        for name, error in refitted.accuracy.items()
    ]
    what = "the weights that it had before" if refitted.is_same else "other weights, a new canary"
    lines.append(f"wrote {output} ({len(refitted.data):,} B): {what}")
    if refitted.lost_signature:
        lines.append("its signature was of the old weights: sign it again with 'edgeplan sign'")
    return lines
