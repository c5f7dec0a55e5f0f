"""Run a model on sample data and write the dynamic range of every tensor.

MODEL as for `edgeplan build`. The table is text in TensorRT's format: a header line, then a tensor
per line with the bits of its scale. `edgeplan build --precision int8 --calibration TABLE` reads it.
"""

from __future__ import annotations

import argparse
import json
import sys

from builder_host.cli.build import shape_argument
from builder_host.cli.precision_options import (
    add_calibrator_arguments,
    add_data_arguments,
    add_signed_argument,
    calibrated,
    require_path,
)
from builder_host.importers.model_file import import_model_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edgeplan calibrate`."""
    parser.add_argument("model", metavar="MODEL", help="model.onnx, model.uff or deploy.prototxt")
    parser.add_argument("weights", metavar="WEIGHTS", nargs="?", help="caffemodel")
    parser.add_argument("-o", "--output", metavar="TABLE", required=True, help="table to write")
    parser.add_argument(
        "--shapes",
        action="append",
        default=[],
        type=shape_argument,
        metavar="NAME:1x3x224x224",
        help="shape of an input; may be repeated; the result does not depend on the batch size",
    )
    add_data_arguments(parser, "--data", "samples")
    add_calibrator_arguments(parser)
    add_signed_argument(parser)
    parser.add_argument("--header", metavar="TEXT", help="first line of the table, for other tools")
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: all cores)")
    parser.add_argument("--json", action="store_true", help="print the ranges as JSON")


def run(args: argparse.Namespace) -> int:
    """Calibrate and write the table. Returns the exit status."""
    from builder_host.calibration.table import CalibrationTable
    from builder_host.cli.progress import progress_display
    from builder_host.config import BuilderConfig

    data = require_path(args.data, "--data")
    config = BuilderConfig(num_threads=args.threads)
    with progress_display(sys.stderr) as progress:
        progress("import", 0, 1)
        network = import_model_file(args.model, args.weights, shapes=dict(args.shapes))
        table = calibrated(args, data, network, config, progress, is_signed=args.signed)
    if args.header is not None:
        table = CalibrationTable(args.header, table.scales)
    table.save(args.output)
    if args.json:
        print(json.dumps({"table": args.output, "header": table.header, "ranges": table.ranges}))
    else:
        print(f"wrote {args.output}: {len(table.scales)} tensors, {table.header}")
    return 0
