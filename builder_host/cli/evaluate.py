"""Top-1 and top-5 accuracy of a plan on labelled pictures or arrays.

LABELS is text with a picture and its class per line, a JSON object, or integers in an .npy or .npz
file (in an .npz the array 'labels', else the first). Classes are numbers, or names in --classes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from builder_host.cli.precision_options import add_data_arguments, open_samples, require_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edgeplan evaluate`."""
    parser.add_argument("plan", metavar="PLAN", help="plan of a classifier for this machine")
    add_data_arguments(parser, "--images", "what is classified")
    parser.add_argument("--labels", metavar="FILE", required=True, help="the class of each sample")
    parser.add_argument("--classes", metavar="F", help="class names: a line each, or a JSON list")
    parser.add_argument("--output", metavar="NAME", help="output with the scores")
    parser.add_argument("--predictions", metavar="F.json", help="write the best class per sample")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Evaluate. Returns the exit status."""
    from builder_host.accuracy.classification import (
        evaluate_plan,
        labels_of,
        load_classes,
        network_of_plan,
    )
    from builder_host.cli.progress import progress_display
    from planformat.reader import open_plan

    images = require_path(args.images, "--images")
    with open_plan(args.plan) as opened, progress_display(sys.stderr) as progress:
        samples = open_samples(args, images, network_of_plan(opened.plan))
        classes = load_classes(args.classes) if args.classes is not None else []
        labels = labels_of(samples, args.labels, classes)
        accuracy = evaluate_plan(
            opened.plan, samples, labels, output=args.output, progress=progress
        )
    if args.predictions is not None:
        Path(args.predictions).write_text(json.dumps(accuracy.predictions), encoding="utf-8")
    if args.json:
        print(json.dumps(accuracy.to_dict()))
    else:
        print(accuracy.text())
    return 0
