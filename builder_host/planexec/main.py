"""The command: build or load, run, report."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import runtime_edge as rt
from builder_host.errors import BuilderError
from builder_host.planexec import exports
from builder_host.planexec.accuracy import distance
from builder_host.planexec.arguments import files_of, parse, shapes_of, split_list
from builder_host.planexec.combinations import check_combination
from builder_host.planexec.inference import (
    Pace,
    Query,
    Session,
    input_arrays,
    measure,
    read_tensor,
)
from builder_host.planexec.metrics import performance_lines
from planformat.errors import PlanError
from planformat.plan import Plan
from planformat.reader import open_plan, read_plan
from runtime_edge.arrays import NUMPY_TYPES

_PROFILE_REPEATS = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status: 1 for an error or a failed accuracy check."""
    try:
        args, given, notes = parse(sys.argv[1:] if arguments is None else arguments)
        for note in (*notes, *check_combination(args, given)):
            _log(f"note: {note}")
        return _run(args, is_profile_given="useProfile" in given)
    except (BuilderError, PlanError, rt.RuntimeEdgeError, OSError) as error:
        print(f"planexec: {error}", file=sys.stderr)
        return 1


def _run(args: argparse.Namespace, *, is_profile_given: bool) -> int:
    if args.getPlanVersionOnly:
        return _print_version(args)
    _check_numbers(args)
    plan = _plan(args)
    if args.skipInference and isinstance(plan, bytes) and args.loadEngine is None:
        _report_layers(args, read_plan(plan), 0, 0)
        return 0
    start = time.perf_counter()
    engine = rt.load(plan, device=_device(args))
    if args.timeDeserialize:
        _log(f"Engine deserialized in {time.perf_counter() - start:g} sec")
    with engine:
        index = chosen_profile(args, engine, is_given=is_profile_given)
        if args.verbose and args.loadEngine is not None:
            for name, value in engine.plan.provenance.items():
                _log(f"{name}: {value}")
        _report_layers(args, engine.plan, engine.variant_index, index)
        return 0 if args.skipInference else _infer(args, engine, index)


def _plan(args: argparse.Namespace) -> bytes | str:
    """The plan to run: a file, or the bytes of one just built."""
    if args.loadEngine is not None:
        models = [name for name in ("deploy", "onnx", "uff") if getattr(args, name) is not None]
        if models:
            raise BuilderError(f"--loadEngine and --{models[0]}: give one of them")
        return str(args.loadEngine) if args.refitFromOnnx is None else _refitted(args)
    if args.refitFromOnnx is not None:
        raise BuilderError("--refitFromOnnx needs --loadEngine")
    from builder_host.planexec.building import build_plan

    start = time.perf_counter()
    built = build_plan(args, _log)
    _log(f"Engine built in {time.perf_counter() - start:g} sec")
    if args.verbose:
        print(built.report.text())
    return built.to_bytes()


def _refitted(args: argparse.Namespace) -> bytes:
    from builder_host.planexec.building import refitted_plan, save_plan

    start = time.perf_counter()
    plan = refitted_plan(args)
    if args.timeRefit:
        _log(f"Engine refitted in {time.perf_counter() - start:g} sec")
    save_plan(args, plan)
    return plan


def chosen_profile(args: argparse.Namespace, engine: rt.Engine, *, is_given: bool) -> int:
    """Number of the profile that --useProfile, --shapes and --batch name.

    Args:
        args: of the command.
        engine: has the profiles.
        is_given: whether --useProfile was.

    Raises:
        BuilderError: there is none, or they name different ones.
    """
    number = args.useProfile
    if not 0 <= number < len(engine.profiles):
        raise BuilderError(f"--useProfile={number}: the plan has {len(engine.profiles)} profiles")
    inputs = [binding.name for binding in engine.bindings if binding.is_input]
    wanted = shapes_of(args.shapes)
    unknown = [name for name in wanted if name not in inputs]
    if unknown:
        raise BuilderError(f"--shapes: no input '{unknown[0]}'; there are {', '.join(inputs)}")

    def fits(profile: str) -> bool:
        shapes = {name: engine.binding_shape(name, profile) for name in inputs}
        batches = {shape[:1] for shape in shapes.values()}
        is_batch = args.batch is None or batches == {(args.batch,)}
        return is_batch and all(shapes[name] == shape for name, shape in wanted.items())

    fitting = [index for index, name in enumerate(engine.profiles) if fits(name)]
    if number in fitting:
        return int(number)
    if fitting and not is_given:
        return fitting[0]
    known = "; ".join(
        f"{index} has " + ", ".join(f"{n} {list(engine.binding_shape(n, name))}" for n in inputs)
        for index, name in enumerate(engine.profiles)
    )
    raise BuilderError(
        f"--shapes, --batch, --useProfile: no profile is all that was asked for; number {known}"
    )


def _infer(args: argparse.Namespace, engine: rt.Engine, index: int) -> int:
    profile = engine.profiles[index]
    memory = engine.weights_bytes + engine.context_bytes(profile) * args.infStreams
    _log(f"profile {profile}, {memory:,} bytes of weights and arenas")
    inputs = input_arrays(engine, profile, files_of(args.loadInputs))
    time.sleep(args.sleepTime / 1e3)
    sessions: list[Session] = []
    try:
        for _ in range(args.infStreams):  # one by one: those made are closed if the next fails
            sessions.append(Session(engine, profile, inputs))
        queries, wall_s = measure(sessions, _pace(args))
        sessions[0].download()
        _report_times(args, queries, wall_s)
        _report_steps(args, sessions[0])
        _report_outputs(args, sessions[0])
        return _check_accuracy(args, engine, profile, sessions[0])
    finally:
        for session in sessions:
            session.close()


def _check_numbers(args: argparse.Namespace) -> None:
    for name in ("avgRuns", "iterations", "warmUp", "sleepTime", "idleTime"):
        value = getattr(args, name)
        if not 0 <= value < math.inf:
            raise BuilderError(f"--{name}={value}: expected a finite number, at least 0")
    if math.isnan(args.duration):
        raise BuilderError(f"--duration={args.duration}: expected seconds, or -1")
    if args.infStreams < 1:
        raise BuilderError(f"--infStreams={args.infStreams}: expected at least 1")


def _pace(args: argparse.Namespace) -> Pace:
    return Pace(
        warm_up_ms=args.warmUp,
        duration_s=args.duration,
        iterations=args.iterations,
        idle_ms=args.idleTime,
        has_transfers=bool(args.includeDataTransfers),
    )


def _report_times(args: argparse.Namespace, queries: Sequence[Query], wall_s: float) -> None:
    percents = _percents(args)
    num_lines = min(args.iterations, len(queries) // args.avgRuns) if args.avgRuns else 0
    for number in range(num_lines):
        group = queries[number * args.avgRuns : (number + 1) * args.avgRuns]
        host = sum(q.end_d2h - q.start_h2d for q in group) / len(group)
        device = sum(q.latency for q in group) / len(group)
        shown = host if args.hostTime else device
        print(f"Average over {len(group)} runs is {shown:g} ms (host walltime is {host:g} ms).")
    for line in performance_lines(queries, wall_s, percents, args.infStreams):
        _log(line)
    if args.exportTimes is not None:
        exports.write_json(args.exportTimes, exports.times(queries))


def _percents(args: argparse.Namespace) -> list[float]:
    try:
        percents = [float(text) for text in split_list(args.percentile) or ("90", "95", "99")]
    except ValueError as error:
        raise BuilderError(f"--percentile: {error}") from error
    if any(not 0 <= percent <= 100 for percent in percents):
        raise BuilderError(f"--percentile: {percents} are not all within 0 and 100")
    return percents


def _report_steps(args: argparse.Namespace, session: Session) -> None:
    if args.dumpProfile or args.exportProfile is not None:
        steps = session.step_times(_PROFILE_REPEATS)
        total = sum(step.time_us for step in steps) or 1.0
        if args.dumpProfile:
            _log("=== Profile ===")
            print(f"{'Layer':48} {'Median (ms)':>12} {'Time %':>8}")
            for step in steps:
                share = step.time_us / total * 100
                print(f"{step.name[:48]:48} {step.time_us / 1e3:12.4f} {share:8.1f}")
            print(f"{'Total':48} {total / 1e3:12.4f} {100:8.1f}")
        if args.exportProfile is not None:
            exports.write_json(args.exportProfile, exports.profile(steps, _PROFILE_REPEATS))


def _report_layers(args: argparse.Namespace, plan: Plan, variant: int, index: int) -> None:
    """What is asked for of a plan whether it runs or not."""
    if args.dumpOptimizationProfile:
        for profile in plan.variants[variant].profiles:
            names = [binding.name for binding in plan.bindings]
            shapes = dict(zip(names, map(list, profile.shapes), strict=True))
            _log(f"Profile {profile.name}: {shapes}")
    if args.dumpLayerInfo or args.exportLayerInfo is not None:
        info = exports.layer_info(plan, variant, index)
        if args.dumpLayerInfo:
            for layer in info["Layers"]:
                print(layer)
        if args.exportLayerInfo is not None:
            exports.write_json(args.exportLayerInfo, info)
    if args.dumpRefit:
        for name, weights in exports.refittable(plan, variant, index):
            print(f"{name}: {', '.join(weights)}")


def _report_outputs(args: argparse.Namespace, session: Session) -> None:
    if args.dumpOutput:
        for name, array in session.outputs.items():
            print(f"{name} {list(array.shape)}:\n{array}")
    if args.exportOutput is not None:
        exports.write_json(args.exportOutput, exports.outputs(session.outputs))
    if args.dumpRawBindingsToFile:
        for name, array in {**session.inputs, **session.outputs}.items():
            np.ascontiguousarray(array).tofile(name.replace("/", "_") + ".bin")


def _check_accuracy(
    args: argparse.Namespace, engine: rt.Engine, profile: str, session: Session
) -> int:
    files = files_of(args.loadRefOutputs)
    if not files:
        return 0
    if args.accuracyThreshold is None or not args.accuracyThreshold > 0:
        raise BuilderError("--loadRefOutputs needs --accuracyThreshold above 0")
    unknown = [name for name in files if name not in session.outputs]
    if unknown:
        raise BuilderError(f"no output '{unknown[0]}'; there are {', '.join(session.outputs)}")
    status = 0
    for name, path in files.items():
        expected = read_tensor(
            path,
            engine.binding_shape(name, profile),
            NUMPY_TYPES[engine.binding_dtype(name)],
        )
        value = distance(
            session.outputs[name],
            expected,
            args.accuracyAlgorithm,
            atol=args.atol,
            rtol=args.rtol,
        )
        verdict = "passed" if value <= args.accuracyThreshold else "FAILED"
        status |= verdict == "FAILED"
        _log(
            f"Accuracy of '{name}': {args.accuracyAlgorithm} = {value:g}, threshold "
            f"{args.accuracyThreshold:g}: {verdict}"
        )
    return int(status)


def _device(args: argparse.Namespace) -> Any:
    """The GPU by number when there is a choice to make; else what the plan was built for."""
    return f"cuda:{args.device}" if args.device else None


def _print_version(args: argparse.Namespace) -> int:
    if args.loadEngine is None:
        raise BuilderError("--getPlanVersionOnly needs --loadEngine")
    with open_plan(Path(args.loadEngine)) as opened:
        plan: Plan = opened.plan
        built_by = plan.provenance.get("builder", "an unknown builder")
        print(f"PLAN format 1.{opened.container.minor}, built by {built_by}")
    return 0


def _log(text: str) -> None:
    print(f"[I] {text}", flush=True)
