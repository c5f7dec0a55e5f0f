"""Arguments and steps that the commands share that load a plan."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from runtime_edge.cli import CommandError
from runtime_edge.device.select import parse_device
from runtime_edge.engine import Engine, load

if TYPE_CHECKING:
    from runtime_edge.run_trace import Fill


def add_load_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every command that loads a plan to run it."""
    parser.add_argument("plan", metavar="PLAN", help="PLAN file")
    parser.add_argument("--key", metavar="PUB", help="public key file; the plan must be signed")
    parser.add_argument(
        "--allow",
        metavar="FIELDS",
        default="",
        help="fingerprint fields that may differ, with commas between (board.* names a group)",
    )
    parser.add_argument(
        "--device", metavar="D", help="cpu, cuda, cuda:1 and so on (default: what the plan fits)"
    )
    parser.add_argument("--no-canary", action="store_true", help="skip the canary inference")
    parser.add_argument("--profile", help="profile to run (default: the first)")
    parser.add_argument(
        "--threads", type=positive_int, metavar="N", help="threads (default: as tuned)"
    )


def add_trace_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every command that can write a trace."""
    parser.add_argument(
        "--trace",
        metavar="OUT.json",
        help="write a trace of further inferences and their steps, for ui.perfetto.dev",
    )
    parser.add_argument(
        "--trace-runs",
        type=positive_int,
        default=10,
        metavar="N",
        help="inferences in the trace (default 10)",
    )


def check_trace_arguments(args: argparse.Namespace) -> None:
    """Refuse a trace that is too long, before anything runs. Raises CommandError."""
    if args.trace is None:
        return
    from runtime_edge.run_trace import MAX_RUNS

    if args.trace_runs > MAX_RUNS:
        raise CommandError(f"--trace-runs {args.trace_runs:,}: at most {MAX_RUNS:,}")


def write_trace(
    args: argparse.Namespace, engine: Engine, profile: str | None, fill: Fill, num_streams: int = 1
) -> None:
    """Run the inferences of `--trace` and write its file; nothing without the option."""
    if args.trace is None:
        return
    from runtime_edge.run_trace import trace_runs

    trace = trace_runs(
        engine, profile, fill=fill, num_streams=num_streams, num_runs=args.trace_runs
    )
    with open(args.trace, "w", encoding="utf-8") as file:
        json.dump(trace, file)


def load_engine(args: argparse.Namespace) -> Engine:
    """Load the plan that the arguments name."""
    if args.device is not None:
        try:
            parse_device(args.device)
        except ValueError as error:
            raise CommandError(f"--device: {error}") from error
    engine = load(
        args.plan,
        public_key=read_public_key(args.key),
        allow=[field for field in args.allow.split(",") if field],
        canary=not args.no_canary,
        num_workers=args.threads,
        device=args.device,
    )
    if args.profile is not None and args.profile not in engine.profiles:
        raise CommandError(
            f"plan {args.plan}: has no profile '{args.profile}'; it has "
            + ", ".join(engine.profiles)
        )
    return engine


def read_public_key(path: str | None) -> bytes | None:
    """The key in a public key file, None without a path."""
    if path is None:
        return None
    from planformat.signing import load_public_key

    return load_public_key(path)


def positive_int(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def positive_float(text: str) -> float:
    """A number above 0, for argparse."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value
