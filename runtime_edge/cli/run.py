"""Run one inference on .npy files.

Inputs come from --input NAME=FILE.npy, one for each input of the plan. A batch that no profile has
exactly is split or padded. Outputs are summarised, and written as NAME.npy with --output-dir.
With --capture a run that fails, or ends the process, leaves what 'edgeplan replay' needs to repeat
it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from runtime_edge.cli import CommandError
from runtime_edge.cli._arrays import input_files, read_array
from runtime_edge.cli._loading import (
    add_load_arguments,
    add_trace_arguments,
    check_trace_arguments,
    load_engine,
    write_trace,
)
from runtime_edge.cli._running import fitting_profile, runner

if TYPE_CHECKING:
    from planformat.fingerprint import DeviceFingerprint
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
    add_trace_arguments(parser)
    parser.add_argument(
        "--capture", metavar="FOLDER", help="keep inputs, options and error here if the run fails"
    )
    parser.add_argument(
        "--capture-always", action="store_true", help="with --capture: also of a run that went well"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    check_trace_arguments(args)
    inputs = {name: read_array(name, path) for name, path in input_files(args.input)}
    if args.capture is None:
        if args.capture_always:
            raise CommandError("--capture-always needs --capture FOLDER")
        engine, outputs, latency_us = _load_and_run(args, inputs)
    else:
        engine, outputs, latency_us = _captured(args, inputs)
    _trace(args, engine, inputs)
    files = {}
    if args.output_dir is not None:
        import numpy as np

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


def _load_and_run(
    args: argparse.Namespace,
    inputs: Mapping[str, Any],
    loaded: Callable[[DeviceFingerprint], None] | None = None,
) -> tuple[Engine, dict[str, Any], float]:
    """The engine, the outputs, and the time of the inference in microseconds."""
    engine = load_engine(args)
    if loaded is not None:
        loaded(engine.fingerprint)
    with runner(engine, args.profile, inputs) as execute:
        start = time.perf_counter_ns()
        outputs = execute(inputs)
        return engine, outputs, (time.perf_counter_ns() - start) / 1000


def _captured(
    args: argparse.Namespace, inputs: Mapping[str, Any]
) -> tuple[Engine, dict[str, Any], float]:
    """As `_load_and_run`; what is needed to repeat it is written before."""
    from runtime_edge.cli._capturing import captured_run

    def work(
        loaded: Callable[[DeviceFingerprint], None],
    ) -> tuple[dict[str, Any], tuple[Engine, dict[str, Any], float]]:
        done = _load_and_run(args, inputs, loaded)
        return done[1], done

    return captured_run(args, inputs, work, keeps_success=args.capture_always)


def _trace(args: argparse.Namespace, engine: Engine, inputs: Mapping[str, Any]) -> None:
    """Write the trace of --trace: further inferences on the same inputs."""
    if args.trace is None:
        return
    import numpy as np

    profile = args.profile or fitting_profile(engine, inputs)
    if profile is None:
        known = "; ".join(
            f"{name}: "
            + ", ".join(
                f"{b.name} {list(engine.binding_shape(b.name, name))}"
                for b in engine.bindings
                if b.is_input
            )
            for name in engine.profiles
        )
        raise CommandError(
            f"--trace: a batch that is split or padded cannot be traced; profiles are {known}"
        )
    data = {name: np.ascontiguousarray(array).tobytes() for name, array in inputs.items()}
    write_trace(args, engine, profile, lambda bindings: bindings.write(data))


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
