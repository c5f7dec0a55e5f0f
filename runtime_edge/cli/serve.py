"""Serve plans over the Open Inference Protocol (KServe V2): the daemon of a board.

Options come from serve.toml (--config); those given here go first. Without a token the daemon
listens on this machine only. docs/daemon.md explains everything, scripts/systemd holds a unit file.
SIGHUP loads new versions of the plans, SIGTERM finishes what was accepted and exits with 0.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runtime_edge.cli import CommandError

if TYPE_CHECKING:
    from runtime_edge.serve.config import ServeConfig
    from runtime_edge.serve.daemon import Daemon
    from runtime_edge.serve.memory_report import DeviceTotals, PlanRow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("--config", metavar="TOML", help="file with options and plans")
    parser.add_argument(
        "--plan", action="append", default=[], metavar="NAME=PATH", help="one more plan to serve"
    )
    parser.add_argument("--http", metavar="HOST:PORT", help="default 127.0.0.1:8000; port 0: any")
    parser.add_argument("--unix", metavar="PATH", help="Unix socket, beside or instead of HTTP")
    parser.add_argument("--metrics", metavar="[HOST]:PORT", help="listener for Prometheus only")
    parser.add_argument("--grpc", metavar="HOST:PORT", help="gRPC service (extra: grpc)")
    parser.add_argument("--token-file", metavar="F", help="file with the bearer token")
    parser.add_argument("--threads", type=int, metavar="N", help="of --plan plans on the CPU")
    parser.add_argument("--device", metavar="D", help="of --plan plans: cpu, cuda, cuda:1 ...")
    parser.add_argument(
        "--allow", metavar="FIELDS", default="", help="of --plan plans: fields that may differ"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="only report the device memory that the plans will take; status 1 if it does not fit",
    )
    parser.add_argument("--log-json", action="store_true", help="one JSON object per log line")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    start = time.perf_counter()
    try:
        import httptools  # noqa: F401
    except ImportError as error:
        raise CommandError(
            "the daemon needs httptools; install it with: pip install 'edgeplan[serve]'"
        ) from error
    config = _config(args)
    _set_up_logging(config.log_json, verbose=args.verbose)
    if args.dry_run:
        return _dry_run(config, as_json=args.json)
    if not config.plans:
        raise CommandError("nothing to serve: give --plan NAME=PATH or --config serve.toml")
    from runtime_edge.serve.daemon import serve

    def on_ready(daemon: Daemon) -> None:
        ready_ms = round((time.perf_counter() - start) * 1000, 1)
        addresses = {
            "http": daemon.http_address,
            "metrics": daemon.metrics_address,
            "grpc": daemon.grpc_address,
        }
        shown = {k: f"{host}:{port}" for k, a in addresses.items() if a for host, port in [a]}
        if config.unix:
            shown["unix"] = config.unix
        if args.json:
            print(json.dumps({"ready_ms": ready_ms, **shown}), flush=True)
        else:
            where = ", ".join(f"{kind} {address}" for kind, address in shown.items())
            print(f"serving on {where} after {ready_ms:.0f} ms", flush=True)

    return serve(config, on_ready)


def _config(args: argparse.Namespace) -> ServeConfig:
    from runtime_edge.serve.config import PlanConfig, ServeConfig, load_config

    config = load_config(args.config) if args.config else ServeConfig()
    plans = list(config.plans)
    for text in args.plan:
        name, separator, path = text.partition("=")
        if not separator or not name or not path:
            raise CommandError(f"--plan {text}: expected NAME=PATH")
        allow = tuple(field for field in args.allow.split(",") if field)
        plans.append(
            PlanConfig(name, path, device=args.device or "", threads=args.threads or 0, allow=allow)
        )
    given: dict[str, Any] = {
        name: getattr(args, name)
        for name in ("unix", "metrics", "grpc", "token_file")
        if getattr(args, name) is not None
    }
    if args.http is not None:
        given["http"] = args.http
    elif args.unix is not None and not args.config:
        given["http"] = ""
    return replace(config, plans=tuple(plans), log_json=config.log_json or args.log_json, **given)


def _dry_run(config: ServeConfig, *, as_json: bool) -> int:
    from runtime_edge.serve.devices import Devices
    from runtime_edge.serve.stream_memory import StreamMemory
    from runtime_edge.serve.stream_worker import StreamWorker

    def no_worker(name: str, memory: StreamMemory) -> StreamWorker:
        raise AssertionError(f"a dry run starts no stream {name} ({memory})")

    rows, devices = Devices(no_worker, config.device_memory_bytes).report(config.plans)
    fits = all(device.fits for device in devices) and not any(row.refusal for row in rows)
    if as_json:
        print(json.dumps(_report_json(rows, devices, fits)))
        return 0 if fits else 1
    for row in rows:
        if row.refusal:
            print(f"{row.name}: cannot be used: {row.refusal}")
            continue
        needs = row.needs
        print(
            f"{row.name}: {row.device}, stream {row.stream}: weights {needs.weights:,} B, arena "
            f"{needs.arena:,} B, bindings {needs.io:,} B"
        )
    for device in devices:
        available = "unknown" if device.available is None else f"{device.available:,} B"
        print(
            f"{device.device}: {device.needed:,} B taken at load, {device.reload:,} B more while "
            f"the largest plan is replaced; available {available}: "
            + ("fits" if device.fits else "DOES NOT FIT")
        )
    return 0 if fits else 1


def _report_json(rows: list[PlanRow], devices: list[DeviceTotals], fits: bool) -> dict[str, Any]:
    return {
        "fits": fits,
        "plans": [
            {
                "name": row.name,
                "device": row.device,
                "stream": row.stream,
                "weights_bytes": row.needs.weights,
                "arena_bytes": row.needs.arena,
                "io_bytes": row.needs.io,
                **({"refusal": row.refusal} if row.refusal else {}),
            }
            for row in rows
        ],
        "devices": [
            {
                "name": device.device,
                "needed_bytes": device.needed,
                "reload_bytes": device.reload,
                "available_bytes": device.available,
                "fits": device.fits,
            }
            for device in devices
        ],
    }


class _JsonFormatter(logging.Formatter):
    """One JSON object per record."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        entry: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def _set_up_logging(log_json: bool, *, verbose: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    if log_json:
        handler.setFormatter(_JsonFormatter())
    else:
        # No time: the journal has its own.
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    level = logging.INFO if verbose or log_json else logging.WARNING
    logging.basicConfig(level=level, handlers=[handler], force=True)
