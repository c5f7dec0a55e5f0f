"""Run one inference on .npy files.

Inputs come from --input NAME=FILE.npy, one for each input of the plan. Outputs are summarised, and
written as NAME.npy with --output-dir.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

from runtime_edge.cli import CommandError
from runtime_edge.cli._loading import add_load_arguments, load_engine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_load_arguments(parser)
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=F.npy",
        help="file of an input; once per input",
    )
    parser.add_argument("--output-dir", metavar="D", help="folder for the outputs, made if missing")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    try:
        import numpy as np
    except ImportError as error:
        raise CommandError(
            "reading .npy files needs NumPy; install it with: pip install numpy"
        ) from error
    inputs: dict[str, Any] = {}
    for text in args.input:
        name, separator, path = text.partition("=")
        if not separator or not name or not path:
            raise CommandError(f"--input {text}: expected NAME=FILE.npy")
        if name in inputs:
            raise CommandError(f"--input {text}: '{name}' is given twice")
        try:
            inputs[name] = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise CommandError(f"--input {text}: not a .npy file: {error}") from error
    engine = load_engine(args)
    with engine.create_context(profile=args.profile) as context:
        start = time.perf_counter_ns()
        outputs = context.execute(inputs)
        latency_us = (time.perf_counter_ns() - start) / 1000
    files = {}
    if args.output_dir is not None:
        os.makedirs(args.output_dir, exist_ok=True)
        for name, array in outputs.items():
            path = os.path.join(args.output_dir, name.replace("/", "_") + ".npy")
            np.save(path, array)
            files[name] = path
    rows = [_summary(name, array, files.get(name)) for name, array in outputs.items()]
    if args.json:
        report = {"plan": args.plan, "latency_us": round(latency_us, 1), "outputs": rows}
        print(json.dumps(report))
        return 0
    for row in rows:
        shape = "x".join(map(str, row["shape"]))
        line = f"{row['name']}: {row['dtype']} {shape}"
        if "min" in row:
            line += f", {row['min']:.6g} to {row['max']:.6g}, largest at {row['argmax']}"
        print(line + (f" -> {row['file']}" if "file" in row else ""))
    print(f"{latency_us / 1000:.3f} ms")
    return 0


def _summary(name: str, array: Any, path: str | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": name,
        "dtype": str(array.dtype),
        "shape": list(array.shape),
    }
    if array.size:
        extremes = {"min": float(array.min()), "max": float(array.max())}
        row.update(extremes, argmax=int(array.argmax()))
    if path is not None:
        row["file"] = path
    return row
