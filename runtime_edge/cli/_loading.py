"""Arguments and steps that the commands share that load a plan."""

from __future__ import annotations

import argparse

from runtime_edge.cli import CommandError
from runtime_edge.device.select import parse_device
from runtime_edge.engine import Engine, load


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
