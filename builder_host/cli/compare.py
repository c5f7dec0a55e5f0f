"""Compare a plan with its model layer by layer.

The model is evaluated in float64, the plan runs on this machine's CPU or GPU, whichever it is for;
each tensor that both know is a row: cosine, largest error, relative error and signal-to-noise
ratio. The first bad layer is named. Without --data the inputs are random, which says little about
a quantised plan.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder_host.cli.build import shape_argument
from builder_host.cli.precision_options import add_data_arguments, open_samples
from builder_host.errors import BuilderError
from builder_host.importers.model_file import import_model_file
from builder_host.network.network import Network

if TYPE_CHECKING:
    from builder_host.accuracy.compare import Comparison


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edgeplan compare`."""
    parser.add_argument("model", metavar="MODEL", help="model.onnx, model.uff or deploy.prototxt")
    parser.add_argument(
        "plan", metavar="PLAN", nargs="?", help="plan of the model for this machine's CPU or GPU"
    )
    parser.add_argument(
        "--emulate",
        choices=("fp16",),
        help="instead of a plan: the model with every value rounded to float16 where it is stored, "
        "as CUDA plans do; shows what overflows",
    )
    parser.add_argument(
        "--shapes",
        action="append",
        default=[],
        type=shape_argument,
        metavar="NAME:1x3x224x224",
        help="with --emulate: shape of an input; may be repeated",
    )
    parser.add_argument("--weights", metavar="F", help="caffemodel of a prototxt")
    add_data_arguments(parser, "--data", "samples")
    parser.add_argument(
        "--threshold", type=float, default=15.0, metavar="DB", help="bad below this (default: 15)"
    )
    parser.add_argument("--html", metavar="F.html", help="write a page with a picture")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Compare. Returns 0, or 1 when a layer is bad."""
    from builder_host.accuracy.compare import compare_emulated, compare_plan
    from builder_host.cli.progress import progress_display
    from planformat.reader import open_plan

    if (args.plan is None) == (args.emulate is None):
        raise BuilderError("name a plan, or --emulate fp16")
    with ExitStack() as stack:
        progress = stack.enter_context(progress_display(sys.stderr))
        if args.plan is None:
            network = import_model_file(args.model, args.weights, shapes=dict(args.shapes))
            comparison = compare_emulated(
                network,
                _samples(args, network),
                threshold_db=args.threshold,
                progress=progress,
            )
            return _report(args, comparison)
        plan = stack.enter_context(open_plan(args.plan)).plan
        shapes = {
            binding.name: shape
            for binding, shape in zip(
                plan.bindings, plan.variants[0].profiles[0].shapes, strict=True
            )
            if binding.is_input
        }
        network = import_model_file(args.model, args.weights, shapes=shapes)
        comparison = compare_plan(
            network,
            plan,
            _samples(args, network),
            threshold_db=args.threshold,
            progress=progress,
        )
    return _report(args, comparison)


def _report(args: argparse.Namespace, comparison: Comparison) -> int:
    from builder_host.accuracy.page import comparison_page

    if args.html is not None:
        Path(args.html).write_text(comparison_page(comparison), encoding="utf-8")
    print(json.dumps(comparison.to_dict()) if args.json else comparison.text())
    return 1 if comparison.first_bad is not None else 0


def _samples(args: argparse.Namespace, network: Network) -> Iterable[Any]:
    from builder_host.emit.verification import CANARY_SEED, canary_arrays

    if args.data is not None:
        return open_samples(args, args.data, network)
    if args.preprocessing is not None or args.samples is not None:
        raise BuilderError("--preprocessing and --samples belong to --data")
    return [canary_arrays(network.inputs, CANARY_SEED)]
