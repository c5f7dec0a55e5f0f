"""What the agent does for each command of PROTOCOL.md section 7; `HANDLERS` maps names to it."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from boards.agent.arguments import device_name, whole
from boards.agent.file_commands import begin, commit, get, put
from boards.agent.measuring import cancel, measure
from boards.agent.plan_commands import (
    activate,
    check,
    daemon,
    mark_good,
    roll_back,
    run,
    status,
)
from boards.agent.tasks import START_SILENCE_S, forward
from boards.conditions import available_memory_bytes, read_conditions
from boards.store.trials import boot_id

if TYPE_CHECKING:
    from boards.agent.request import Request


def _identify(request: Request) -> None:
    root = request.agent.store.root
    root.mkdir(parents=True, exist_ok=True)
    request.reply(
        {
            "software": request.agent.config.software,
            "host": platform.node(),
            "architecture": platform.machine(),
            "python": platform.python_version(),
            "pid": os.getpid(),
            "model": _read("/proc/device-tree/model"),
            "boot": boot_id(),
            "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "uptime_s": round(time.monotonic() - request.agent.started_at, 1),
            "store": str(root),
            "free_bytes": shutil.disk_usage(root).free,
            "available_memory_bytes": available_memory_bytes(),
            "wants_signature": request.agent.config.public_key is not None,
        }
    )


def _ping(request: Request) -> None:
    request.reply()


def _set_rate(request: Request) -> None:
    baud = whole(request.fields["baud"], 1200, 16_000_000)
    stop_bits = whole(request.fields["stop_bits"], 1, 2)
    request.host.line.want_rate(baud, stop_bits, time.monotonic())
    request.reply()


def _keep_rate(request: Request) -> None:
    request.host.line.keep_rate()
    request.reply()


def _conditions(request: Request) -> None:
    request.reply({"conditions": read_conditions()})


def _logs(request: Request) -> None:
    request.host.follows_logs = request.fields.get("follow") is True
    count = whole(request.fields.get("lines", 100), 0, 1000)
    lines = list(request.agent.log_lines)
    request.reply({"lines": lines[len(lines) - min(count, len(lines)) :]})


def _probe(request: Request) -> None:
    task = {"task": "probe", "device": device_name(request.fields.get("device", "cpu")) or "cpu"}
    forward(request, task, START_SILENCE_S)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").rstrip("\0\n")
    except OSError:
        return ""


HANDLERS: Mapping[str, Callable[[Request], None]] = {
    "identify": _identify,
    "ping": _ping,
    "set_rate": _set_rate,
    "keep_rate": _keep_rate,
    "conditions": _conditions,
    "logs": _logs,
    "probe": _probe,
    "begin": begin,
    "put": put,
    "commit": commit,
    "get": get,
    "measure": measure,
    "cancel": cancel,
    "check": check,
    "activate": activate,
    "mark_good": mark_good,
    "roll_back": roll_back,
    "status": status,
    "run": run,
    "daemon": daemon,
}
