"""Run one inference on .npy files.

Inputs come from --input NAME=FILE.npy, one for each input of the plan. A batch that no profile has
exactly is split or padded. Outputs are summarised, and written as NAME.npy with --output-dir.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from runtime_edge.cli import CommandError
from runtime_edge.cli._loading import add_load_arguments, load_engine

if TYPE_CHECKING:
    from runtime_edge.engine import Engine


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
    with _runner(engine, args.profile, inputs) as execute:
        start = time.perf_counter_ns()
        outputs = execute(inputs)
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


@contextmanager
def _runner(
    engine: Engine, profile: str | None, inputs: Mapping[str, Any]
) -> Iterator[Callable[[Mapping[str, Any]], dict[str, Any]]]:
    """The profile named; else the one that has the inputs' shapes; else all, for any batch."""
    if profile is None:
        shapes = {name: array.shape for name, array in inputs.items()}
        profile = _profile_of(engine, shapes)
    if profile is None and _is_other_batch(engine, inputs):
        from runtime_edge.batching import BatchRunner

        with BatchRunner(engine) as runner:
            yield runner.run
        return
    with engine.create_context(profile=profile) as context:
        yield context.execute


def _profile_of(engine: Engine, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    for name in engine.profiles:
        own = {b.name: engine.binding_shape(b.name, name) for b in engine.bindings if b.is_input}
        if own == shapes:
            return name
    return None


def _is_other_batch(engine: Engine, inputs: Mapping[str, Any]) -> bool:
    """Whether every input has the default profile's shape but for dimension 0."""
    own = {b.name: engine.binding_shape(b.name) for b in engine.bindings if b.is_input}
    return own.keys() == inputs.keys() and all(
        len(array.shape) == len(own[name]) > 0 and array.shape[1:] == own[name][1:]
        for name, array in inputs.items()
    )


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
