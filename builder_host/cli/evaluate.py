"""Top-1 and top-5 accuracy of a plan or model on labelled pictures or arrays.

A model is built in float32 for this machine first. LABELS is text or CSV with a picture and its
class per line (with a header or without), a class per line in the order of the samples, a JSON
object, or integers in an .npy or .npz file (in an .npz the array 'labels', else the first).
Without LABELS the class of a picture is the folder that it lies in. Classes are numbers, or names
or WordNet ids in --classes. With --against another plan or model runs beside it: how often both
agree, and what that lets expect of the accuracy. This needs no labels; folders are then taken as
classes where --classes is given.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from builder_host.cli.build import shape_argument
from builder_host.cli.precision_options import add_data_arguments, open_samples, require_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from planformat.plan import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edgeplan evaluate`."""
    parser.add_argument(
        "plan", metavar="PLAN|MODEL", help="plan of a classifier for this machine, or its model"
    )
    add_data_arguments(parser, "--data", "what is classified", alias="--images")
    parser.add_argument("--labels", metavar="FILE", help="the class of each sample")
    parser.add_argument(
        "--classes", metavar="F", help="class names or WordNet ids: a line each, or JSON"
    )
    parser.add_argument(
        "--label-offset",
        type=int,
        default=0,
        metavar="N",
        help="added to labels that are numbers: -1 for labels from 1, 1 where class 0 is the "
        "background",
    )
    parser.add_argument("--output", metavar="NAME", help="output with the scores")
    parser.add_argument(
        "--against", metavar="PLAN|MODEL", help="compare with this one, e.g. the float32 model"
    )
    parser.add_argument("--weights", metavar="F", help="caffemodel of a prototxt")
    parser.add_argument(
        "--shapes",
        action="append",
        default=[],
        type=shape_argument,
        metavar="NAME:1x3x224x224",
        help="of a model: shape of an input; may be repeated",
    )
    parser.add_argument("--predictions", metavar="F.json", help="write the best class per sample")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Evaluate. Returns the exit status."""
    from builder_host.accuracy.classification import (
        evaluate_plan,
        network_of_plan,
        num_classes_of,
    )
    from builder_host.accuracy.labels import folder_labels, labels_of, load_classes
    from builder_host.cli.progress import progress_display

    data = require_path(args.data, "--data")
    with ExitStack() as stack:
        progress = stack.enter_context(progress_display(sys.stderr))
        plan = _opened(args.plan, args, stack, progress)
        against = None if args.against is None else _opened(args.against, args, stack, progress)
        samples = open_samples(args, data, network_of_plan(plan))
        classes = load_classes(args.classes) if args.classes is not None else None
        labels = None
        if args.labels is not None:
            labels = labels_of(samples, args.labels, classes, offset=args.label_offset)
        elif against is None or classes is not None:
            labels = folder_labels(
                samples,
                classes,
                num_classes=num_classes_of(plan, args.output),
                offset=args.label_offset,
            )
        accuracy = evaluate_plan(
            plan, samples, labels, output=args.output, against=against, progress=progress
        )
    if args.predictions is not None:
        Path(args.predictions).write_text(json.dumps(accuracy.predictions), encoding="utf-8")
    print(json.dumps(accuracy.to_dict()) if args.json else accuracy.text())
    return 0


def _opened(
    path: str,
    args: argparse.Namespace,
    stack: ExitStack,
    progress: Callable[[str, int, int], None],
) -> Plan:
    """A plan from its file, or built from a model in float32 with kernels by the cost model."""
    from builder_host.builder import build
    from builder_host.config import BuilderConfig
    from builder_host.importers.model_file import ENDINGS, import_model_file
    from planformat.reader import open_plan

    if Path(path).suffix not in ENDINGS:
        return stack.enter_context(open_plan(path)).plan
    network = import_model_file(path, args.weights, shapes=dict(args.shapes))
    return build(network, BuilderConfig(measure="none"), progress=progress).plan
