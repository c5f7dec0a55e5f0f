"""Options of the daemon: serve.toml and the command line, checked when they are read."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from runtime_edge.device.select import parse_device
from runtime_edge.serve.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}")
MAX_PRIORITY_LEVELS = 8


@dataclass(frozen=True, slots=True)
class PlanConfig:
    """One plan that is served.

    Attributes:
        name: in URLs and metrics.
        path: of the PLAN file; when it is, or lies behind, a symbolic link, a changed link means a
            new plan.
        device: `cpu`, `cuda`, `cuda:1`; empty picks one that the plan was built for.
        stream: plans with the same device and stream name run one after the other and share one
            arena; others run beside each other.
        key: public key file; the plan must be signed.
        allow: fingerprint fields that may differ.
        threads: per context on the CPU; 0 takes what the plan was tuned for.
        version: what clients see as the model's version; digits.
        required: the daemon is not ready without it.
        queue_requests, queue_bytes, queue_ms: bounds of its queue: number and bytes of requests,
            counted from their heads on, and time that a request waits before its execution begins.
            A single request is taken whatever its bytes.
        deadline_ms: of requests that name none; 0 is no deadline.
        priority_levels, default_priority: 1 is the most urgent; requests may choose 1 to
            priority_levels.
        weight: share of the device against other plans of the same priority.
        batch_delay_us: how long a request may wait for others to share its execution, where the
            plan has several profiles.
        capture_failures: folder for requests whose execution failed, a bounded number of them, for
            `edgeplan replay`; they hold what clients sent. Empty keeps none.
    """

    name: str
    path: str
    device: str = ""
    stream: str = "default"
    key: str = ""
    allow: tuple[str, ...] = ()
    threads: int = 0
    version: str = "1"
    required: bool = True
    queue_requests: int = 64
    queue_bytes: int = 16 << 20
    queue_ms: float = 1000.0
    deadline_ms: float = 0.0
    priority_levels: int = 3
    default_priority: int = 2
    weight: float = 1.0
    batch_delay_us: float = 0.0
    capture_failures: str = ""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ConfigError: names the plan, the option and the value.
        """
        where = f"plan '{self.name}'"
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"{where}: a name has 1 to 128 letters, digits, '_', '-' or '.', and begins with a "
                "letter or digit"
            )
        if not self.path:
            raise ConfigError(f"{where}: path is missing; name the PLAN file")
        if self.device:
            try:
                parse_device(self.device)
            except ValueError as error:
                raise ConfigError(f"{where}: {error}") from error
        if not (self.version.isascii() and self.version.isdigit()):
            raise ConfigError(f"{where}: version is '{self.version}', it must be digits")
        _check_range(where, "threads", self.threads, 0, 1024)
        _check_range(where, "queue_requests", self.queue_requests, 1, 65536)
        _check_range(where, "queue_bytes", self.queue_bytes, 1, 1 << 40)
        _check_range(where, "queue_ms", self.queue_ms, 0.001, 3_600_000)
        _check_range(where, "deadline_ms", self.deadline_ms, 0, 3_600_000)
        _check_range(where, "priority_levels", self.priority_levels, 1, MAX_PRIORITY_LEVELS)
        _check_range(where, "default_priority", self.default_priority, 1, self.priority_levels)
        _check_range(where, "weight", self.weight, 0.001, 1000)
        _check_range(where, "batch_delay_us", self.batch_delay_us, 0, 10_000_000)


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """Everything that the daemon is told.

    Attributes:
        plans: what is served.
        http: `HOST:PORT` of the Open Inference Protocol, empty for none; port 0 lets the system
            choose.
        unix: path of a Unix socket with the same protocol, empty for none.
        metrics: `HOST:PORT` of a listener that has only /metrics and health, empty for none.
        grpc: `HOST:PORT` of the gRPC service, empty for none.
        token_file: file with the bearer token that every request but health must bring.
        tls_cert, tls_key: PEM files; both or none.
        allow_unauthenticated: listen on other addresses than loopback without a token.
        max_connections: open at once, all listeners together.
        max_body_bytes: of one request, whatever the plan.
        max_inflight_bytes: of all request bodies, and answers that clients are slow to read, in
            memory at once.
        head_timeout_s: for the whole head of a request; body_timeout_s: for its body;
            idle_timeout_s: between requests; write_timeout_s: for a response.
        drain_timeout_s: how long work may take to end after SIGTERM.
        watch_interval_s: how often links to plans are looked at; 0 is never.
        device_memory_bytes: budget for all plans on one device; 0 asks the device.
        state_dir: folder that remembers which plans worked, for a start with a broken one.
        trace_events: requests kept for /trace; 0 turns tracing off.
        log_json: structured logs, one JSON object a line.
        allow_repository: load and unload over the network.
        allow_shared_memory: registering system shared memory.
    """

    plans: tuple[PlanConfig, ...] = ()
    http: str = "127.0.0.1:8000"
    unix: str = ""
    metrics: str = ""
    grpc: str = ""
    token_file: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    allow_unauthenticated: bool = False
    max_connections: int = 256
    max_body_bytes: int = 64 << 20
    max_inflight_bytes: int = 64 << 20
    head_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    idle_timeout_s: float = 75.0
    write_timeout_s: float = 30.0
    drain_timeout_s: float = 30.0
    watch_interval_s: float = 1.0
    device_memory_bytes: int = 0
    state_dir: str = ""
    trace_events: int = 4096
    log_json: bool = False
    allow_repository: bool = True
    allow_shared_memory: bool = True

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ConfigError: names the option and the value.
        """
        names = [plan.name for plan in self.plans]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"plan '{name}' is named twice")
        if not (self.http or self.unix):
            raise ConfigError("no listener: give http or unix")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ConfigError("tls_cert and tls_key belong together; one of them is missing")
        for option in ("http", "metrics", "grpc"):
            text = getattr(self, option)
            if not text:
                continue
            host, _ = split_address(text, option)
            if option == "metrics" or is_loopback(host):
                continue
            if not self.token_file and not self.allow_unauthenticated:
                raise ConfigError(
                    f"{option} = '{text}' can be reached from other machines and there is no "
                    "token: set token_file, or allow_unauthenticated = true if that is meant"
                )
        for option, low, high in _SERVER_RANGES:
            _check_range("server", option, getattr(self, option), low, high)


_SERVER_RANGES = (
    ("max_connections", 1, 65536),
    ("max_body_bytes", 1024, 1 << 40),
    ("max_inflight_bytes", 1024, 1 << 42),
    ("head_timeout_s", 0.05, 3600),
    ("body_timeout_s", 0.05, 3600),
    ("idle_timeout_s", 0.05, 86400),
    ("write_timeout_s", 0.05, 3600),
    ("drain_timeout_s", 0, 3600),
    ("watch_interval_s", 0, 3600),
    ("device_memory_bytes", 0, 1 << 50),
    ("trace_events", 0, 1_000_000),
)


def split_address(text: str, option: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, `:PORT` (loopback) or `[IPV6]:PORT`.

    Raises:
        ConfigError: not of this form.
    """
    host, separator, port = text.rpartition(":")
    if not separator or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ConfigError(f"{option} = '{text}': expected HOST:PORT with a port up to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError(f"{option} = '{text}': write IPv6 addresses as [ADDRESS]:PORT")
    return host or "127.0.0.1", int(port)


def is_loopback(host: str) -> bool:
    """Whether an address is only reachable from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_config(path: str) -> ServeConfig:
    """Read serve.toml: a table `server`, and one table `plans.NAME` per plan.

    Relative plan and key paths are relative to the file's folder.

    Raises:
        ConfigError: not TOML, an unknown option (the nearest known one is named), a wrong value.
        OSError: the file cannot be read.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    with open(path, "rb") as file:
        try:
            content = tomllib.load(file)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path}: not TOML: {error}") from error
    unknown = [name for name in content if name not in ("server", "plans")]
    if unknown:
        raise ConfigError(f"{path}: unknown table '{unknown[0]}'; known are server and plans.NAME")
    folder = os.path.dirname(os.path.abspath(path))
    plans = []
    tables = content.get("plans", {})
    if not isinstance(tables, dict):
        raise ConfigError(f"{path}: 'plans' must be tables [plans.NAME]")
    for name, table in tables.items():
        options = _options(f"{path}: [plans.{name}]", table, PlanConfig)
        for option in ("path", "key", "capture_failures"):
            if options.get(option):
                options[option] = os.path.join(folder, options[option])
        options.setdefault("path", "")
        plans.append(PlanConfig(**{**options, "name": name}))
    server = _options(f"{path}: [server]", content.get("server", {}), ServeConfig)
    for option in ("token_file", "tls_cert", "tls_key", "state_dir"):
        if server.get(option):
            server[option] = os.path.join(folder, server[option])
    return ServeConfig(**{**server, "plans": tuple(plans)})


def read_token(path: str) -> bytes:
    """The bearer token in a file.

    Raises:
        ConfigError: shorter than 16 characters, or readable by everyone.
    """
    if os.stat(path).st_mode & 0o007:
        raise ConfigError(f"{path}: everyone on this machine may read the token: chmod o-rwx it")
    with open(path, "rb") as file:
        token = file.read(4096).strip()
    if len(token) < 16 or any(byte < 0x21 or byte > 0x7E for byte in token):
        raise ConfigError(
            f"{path}: a token has at least 16 printable characters without spaces, this one "
            f"{len(token)}; make one with: openssl rand -hex 32"
        )
    return token


def _options(where: str, table: Any, kind: type[PlanConfig] | type[ServeConfig]) -> dict[str, Any]:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: must be a table")
    known: dict[str, Any] = {f.name: f for f in fields(kind) if f.name not in ("name", "plans")}
    options: dict[str, Any] = {}
    for name, value in table.items():
        if name not in known:
            near = difflib.get_close_matches(name, known)
            hint = f"did you mean '{near[0]}'" if near else "known are " + ", ".join(known)
            raise ConfigError(f"{where}: unknown option '{name}'; {hint}")
        options[name] = _converted(f"{where}: {name}", value, str(known[name].type))
    return options


def _converted(where: str, value: Any, kind: str) -> Any:
    accepted: dict[str, tuple[type, ...]] = {
        "str": (str,),
        "int": (int,),
        "float": (int, float),
        "bool": (bool,),
    }
    if kind.startswith("tuple"):
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise ConfigError(f"{where} is {value!r}, it must be a list of strings")
    if not isinstance(value, accepted[kind]) or (kind != "bool" and isinstance(value, bool)):
        raise ConfigError(f"{where} is {value!r}, it must be of type {kind}")
    return value


def _check_range(where: str, option: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{where}: {option} is {value:g}, allowed are {low:g} to {high:g}")
