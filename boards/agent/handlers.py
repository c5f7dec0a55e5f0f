"""What the agent does for each command of PROTOCOL.md section 7; `HANDLERS` maps names to it."""

from __future__ import annotations

import logging
import os
import platform
import re
import secrets
import shutil
import subprocess
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boards.conditions import available_memory_bytes, conditions_text, read_conditions
from boards.errors import CommandFailedError
from boards.store.incoming import IncomingFile, check_sha256
from boards.store.pieces import MAX_PIECE_BYTES
from boards.store.plan_store import boot_id, check_name
from boards.store.records import ReleaseRecord, ReleaseState

if TYPE_CHECKING:
    from boards.agent.agent import Request
    from boards.agent.child import ChildEnd

log = logging.getLogger(__name__)

MAX_READ_BYTES = 1 << 18
MAX_FILE_BYTES = 1 << 36
_DEVICE = re.compile(r"cpu|cuda(:\d{1,3})?|")
_START_SILENCE_S = 60.0  # a board may take long to import CUDA the first time
_CHECK_SILENCE_S = 300.0
_MEMORY_SHARE = 0.8  # of what is available, for one child
_LEAST_MEMORY_BYTES = 64 << 20
_DAEMON_UNIT = "edgeplan.service"
_DAEMON_ACTIONS = ("start", "stop", "restart", "is-active")


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
            "utc": _utc("%Y-%m-%dT%H:%M:%SZ"),
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
    baud = _whole(request.fields["baud"], 1200, 16_000_000)
    stop_bits = _whole(request.fields["stop_bits"], 1, 2)
    request.host.line.want_rate(baud, stop_bits, time.monotonic())
    request.reply()


def _keep_rate(request: Request) -> None:
    request.host.line.keep_rate()
    request.reply()


def _conditions(request: Request) -> None:
    request.reply({"conditions": read_conditions()})


def _logs(request: Request) -> None:
    request.host.follows_logs = request.fields.get("follow") is True
    count = _whole(request.fields.get("lines", 100), 0, 1000)
    lines = list(request.agent.log_lines)
    request.reply({"lines": lines[len(lines) - min(count, len(lines)) :]})


def _probe(request: Request) -> None:
    task = {"task": "probe", "device": _device(request.fields.get("device", "cpu")) or "cpu"}
    _forward(request, task, _START_SILENCE_S)


# --- files -------------------------------------------------------------------------------


def _begin(request: Request) -> None:
    sha256 = check_sha256(request.fields["sha256"])
    size = _whole(request.fields["size"], 1, MAX_FILE_BYTES)

    def finish(file: IncomingFile) -> None:
        bitmap = file.missing_bitmap()
        request.reply({"missing": file.num_missing, "copied": file.num_copied}, bitmap)

    incoming = request.agent.incoming
    request.agent.aside(request, lambda: incoming.begin(sha256, size, request.body), finish)


def _put(request: Request) -> None:
    file = request.agent.incoming.get(request.fields["sha256"])
    index = _whole(request.fields["index"], 0, len(file.pieces) - 1)
    data = request.body
    if request.fields.get("zlib") is True:
        unpacker = zlib.decompressobj()
        try:
            data = unpacker.decompress(data, MAX_PIECE_BYTES + 1)
        except zlib.error as error:
            raise CommandFailedError(
                f"piece {index} cannot be unpacked: {error}", "damaged"
            ) from error
    file.put(index, data)
    request.agent.when_synced(request.reply)


def _commit(request: Request) -> None:
    sha256 = check_sha256(request.fields["sha256"])
    file = request.agent.incoming.get(sha256)
    is_cached = request.fields.get("to") == "cache"
    name = "" if is_cached else check_name(str(request.fields["name"]))

    def finish(missing: int) -> None:
        if missing:
            text = f"{missing} pieces are missing or damaged; begin again"
            raise CommandFailedError(text, "missing")
        if is_cached:
            request.agent.incoming.to_cache(sha256)
            request.reply()
            return
        record = ReleaseRecord(sha256[:16], sha256, file.size_bytes)
        request.agent.store.add(name, file.part_path, record, file.table)
        request.agent.incoming.finish(sha256)
        log.info("'%s': release %s is stored", name, record.release_id)
        request.reply({"release": record.release_id})

    request.agent.aside(request, file.check, finish)


def _get(request: Request) -> None:
    path = request.agent.incoming.cached(request.fields["sha256"])
    offset = _whole(request.fields["offset"], 0, MAX_FILE_BYTES)
    length = _whole(request.fields["length"], 0, MAX_READ_BYTES)
    with open(path, "rb") as file:
        request.reply({"size": path.stat().st_size}, os.pread(file.fileno(), length, offset))


# --- measuring ---------------------------------------------------------------------------


class _Measuring:
    """Times the candidates of one bundle; a process that dies is started again without its last."""

    def __init__(self, request: Request) -> None:
        fields = request.fields
        self.request = request
        self.path = str(request.agent.incoming.cached(fields["sha256"]))
        self.device = _device(fields.get("device", ""))
        self.allow = _texts(fields.get("allow", []))
        self.candidate_s = _seconds(fields.get("candidate_s", 20.0), 0.1, 600.0)
        self.memory_bytes = _memory_limit(fields.get("memory_bytes"))
        self.done: set[int] = {_whole(i, 0, 1 << 20) for i in fields.get("skip", [])}
        self.is_finished = False

    def start(self) -> None:
        kind = self.device.partition(":")[0]
        self.request.start_child(
            {
                "task": "measure",
                "path": self.path,
                "device": self.device,
                "allow": self.allow,
                "skip": sorted(self.done),
                # drivers of GPUs reserve address space without end; residence is watched anyway
                "memory_bytes": self.memory_bytes if kind == "cpu" else 0,
            },
            self.on_answer,
            self.on_end,
            silence_s=_START_SILENCE_S,
            memory_bytes=self.memory_bytes,
            candidate_s=self.candidate_s,
        )

    def on_answer(self, answer: Mapping[str, Any]) -> None:
        if "results" in answer:
            self.done |= {row[0] for row in answer["results"]}
            self.request.notify(
                {
                    "notice": "results",
                    "results": answer["results"],
                    "conditions": answer["conditions"],
                }
            )
        elif "failed" in answer:
            self.fail_candidate(answer["failed"], answer["reason"])
        elif "error" in answer:
            self.is_finished = True
            self.request.fail(answer["error"], answer["code"])
        elif "done" in answer:
            self.is_finished = True
            self.request.reply()

    def on_end(self, end: ChildEnd) -> None:
        if self.is_finished or not self.request.is_wanted:
            return
        if end.candidate >= 0 and end.candidate not in self.done:
            self.fail_candidate(end.candidate, end.reason or f"it ended with status {end.status}")
        elif end.candidate < 0:
            self.request.fail(
                f"the measuring process failed: {end.reason or f'status {end.status}'}"
                + (f": {end.last_words[-500:]}" if end.last_words else ""),
                "worker",
            )
            return
        self.start()

    def fail_candidate(self, index: int, reason: str) -> None:
        self.done.add(index)
        log.warning("candidate %d failed: %s", index, reason)
        row = [index, None, None, None, 0, reason]
        text = conditions_text(read_conditions())
        self.request.notify({"notice": "results", "results": [row], "conditions": text})


def _measure(request: Request) -> None:
    if request.agent.is_measuring:
        raise CommandFailedError(
            "another measurement or check is running on this board; wait", "busy"
        )
    _Measuring(request).start()


def _cancel(request: Request) -> None:
    child = request.host.children.get(_whole(request.fields["call"], 0, 1 << 53))
    if child is not None:
        child.kill("the host cancelled it")
    request.reply({"cancelled": child is not None})


# --- plans -------------------------------------------------------------------------------


def _check(request: Request) -> None:
    """Verify a stored release and try it; the answer is what was found."""
    agent = request.agent
    if agent.is_measuring:
        raise CommandFailedError(
            "another measurement or check is running on this board; wait", "busy"
        )
    name = check_name(str(request.fields["name"]))
    release_id = _release_id(request.fields["release"])
    record = agent.store.record(name, release_id)
    key = agent.config.public_key
    task = {
        "task": "check",
        "path": str(agent.store.plan_path(name, release_id)),
        "source": f"'{name}' release {release_id}",
        "public_key": key.hex() if key else "",
        "allow": _texts(request.fields.get("allow", [])),
    }
    found: dict[str, Any] = {}

    def on_answer(answer: Mapping[str, Any]) -> None:
        if "step" in answer:
            request.notify({"notice": "step", "step": answer["step"]})
        else:
            found.update(answer)

    def on_end(end: ChildEnd) -> None:
        if "network" in found:
            try:
                agent.store.check_release(
                    name, found["number"], found["expires"], today=_utc("%Y-%m-%d")
                )
            except Exception as error:
                found.clear()
                found.update(error=str(error), code="release")
        if "network" not in found:
            text = found.get("error") or (
                f"the plan brought its process down: {end.reason or f'status {end.status}'}"
                + (f": {end.last_words[-500:]}" if end.last_words else "")
            )
            agent.store.mark_bad(name, release_id, str(text)[:2000])
            log.warning("'%s': release %s is bad: %s", name, release_id, text)
            request.fail(str(text), str(found.get("code", "crash")))
            return
        state = record.state
        if state in (ReleaseState.STAGED, ReleaseState.BAD):
            state = ReleaseState.CHECKED
        agent.store.update(
            name,
            replace(
                record,
                state=state,
                reason="",
                network=found["network"],
                number=found["number"],
                expires=found["expires"],
                built_us=found["built_us"],
                checked_us=found["checked_us"],
                notes=tuple(found["notes"]),
            ),
        )
        request.reply(found)

    request.start_child(
        task, on_answer, on_end, silence_s=_CHECK_SILENCE_S, memory_bytes=_memory_limit(None)
    )


def _activate(request: Request) -> None:
    name = check_name(str(request.fields["name"]))
    release_id = _release_id(request.fields["release"])
    trial = request.fields.get("trial_s")
    store = request.agent.store
    record = store.record(name, release_id)
    store.check_release(name, record.number, record.expires, today=_utc("%Y-%m-%d"))
    store.activate(
        name, release_id, trial_s=None if trial is None else _seconds(trial, 0.0, 86400.0 * 7)
    )
    log.info("'%s': release %s is active", name, release_id)
    request.reply({"previous": store.previous(name)})


def _mark_good(request: Request) -> None:
    name = check_name(str(request.fields["name"]))
    request.agent.store.mark_good(name)
    log.info("'%s': marked good", name)
    request.reply()


def _roll_back(request: Request) -> None:
    name = check_name(str(request.fields["name"]))
    reason = str(request.fields.get("reason", "asked for by a host"))[:2000]
    active = request.agent.store.roll_back(name, reason)
    log.warning("'%s': rolled back to %s: %s", name, active or "nothing", reason)
    request.reply({"active": active})


def _status(request: Request) -> None:
    store = request.agent.store
    plans = [
        {
            "name": name,
            "active": store.generation(name),
            "previous": store.previous(name),
            "floor": store.floor(name),
            "releases": [record.describe() for record in store.releases(name)],
        }
        for name in store.names()
    ]
    request.reply({"plans": plans, "conditions": read_conditions()})


def _run(request: Request) -> None:
    agent = request.agent
    inputs = request.fields["inputs"]
    if not isinstance(inputs, dict):
        raise ValueError("inputs must map names to files")
    key = agent.config.public_key
    if "plan" in request.fields:
        # a plan that is being built: whoever may time candidates may run it, signed or not
        path, key = agent.incoming.cached(request.fields["plan"]), None
    else:
        path = agent.store.active(check_name(str(request.fields["name"])))
    seed = request.fields.get("canary_seed")
    agent.incoming.cache.mkdir(parents=True, exist_ok=True)
    output = agent.incoming.cache / f".run-{secrets.token_hex(8)}"
    task = {
        "task": "run",
        "path": str(path),
        "public_key": key.hex() if key else "",
        "canary_seed": None if seed is None else _whole(seed, 0, (1 << 64) - 1),
        "time": request.fields.get("time") is True,
        "canary": "plan" not in request.fields,
        "allow": _texts(request.fields.get("allow", [])),
        "inputs": {str(k): str(agent.incoming.cached(v)) for k, v in inputs.items()},
        "output": str(output),
    }

    def keep(answer: Mapping[str, Any]) -> dict[str, Any]:
        sha256 = _file_sha256(output)
        target = agent.incoming.cache / sha256
        target.mkdir(exist_ok=True)
        os.replace(output, target / "content")
        return {**answer, "sha256": sha256, "size": (target / "content").stat().st_size}

    _forward(request, task, _CHECK_SILENCE_S, keep, lambda: output.unlink(missing_ok=True))


def _daemon(request: Request) -> None:
    """Start or stop the serving daemon through systemd."""
    action = request.fields["action"]
    if action not in _DAEMON_ACTIONS:
        raise CommandFailedError(
            f"action is {action!r}; known: {', '.join(_DAEMON_ACTIONS)}", "arguments"
        )
    try:
        done = subprocess.run(
            ["systemctl", "--no-ask-password", action, _DAEMON_UNIT],  # noqa: S607 - system's own
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandFailedError(f"systemctl {action} {_DAEMON_UNIT}: {error}") from error
    text = (done.stdout + done.stderr).strip()
    if done.returncode and action != "is-active":
        raise CommandFailedError(f"systemctl {action} {_DAEMON_UNIT}: {text}")
    request.reply({"text": text})


def _forward(
    request: Request,
    task: Mapping[str, Any],
    silence_s: float,
    finish: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda answer: answer,
    clean: Callable[[], None] = lambda: None,
) -> None:
    """Let a child do a task with one answer, and answer with it."""
    found: dict[str, Any] = {}

    def on_end(end: ChildEnd) -> None:
        if "error" in found:
            request.fail(str(found["error"]), str(found.get("code", "failed")))
        elif found:
            request.reply(finish(found))
        else:
            request.fail(
                f"the process for it failed: {end.reason or f'status {end.status}'}"
                + (f": {end.last_words[-500:]}" if end.last_words else ""),
                "crash",
            )
        clean()

    request.start_child(
        task, found.update, on_end, silence_s=silence_s, memory_bytes=_memory_limit(None)
    )


def _memory_limit(wanted: Any) -> int:
    """Bytes that a child may take: no more than most of what is there."""
    available = available_memory_bytes() or (1 << 40)
    limit = max(_LEAST_MEMORY_BYTES, int(available * _MEMORY_SHARE))
    return limit if wanted is None else min(limit, _whole(wanted, _LEAST_MEMORY_BYTES, 1 << 44))


def _device(value: Any) -> str:
    if not isinstance(value, str) or not _DEVICE.fullmatch(value):
        raise ValueError(f"device {value!r}; known are cpu, cuda, cuda:N")
    return value


def _release_id(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{16}", value):
        raise ValueError(f"release {value!r} is no id of 16 hexadecimal digits")
    return value


def _whole(value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{value!r} is not a whole number from {low} to {high}")
    return value


def _seconds(value: Any, low: float, high: float) -> float:
    if type(value) not in (int, float) or not low <= value <= high:
        raise ValueError(f"{value!r} is not a time from {low:g} to {high:g} s")
    return float(value)


def _texts(value: Any) -> Sequence[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{value!r} is not a list of texts")
    return value


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").rstrip("\0\n")
    except OSError:
        return ""


def _utc(form: str) -> str:
    return time.strftime(form, time.gmtime())


def _file_sha256(path: Path) -> str:
    import hashlib

    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while data := file.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()


HANDLERS: Mapping[str, Callable[[Request], None]] = {
    "identify": _identify,
    "ping": _ping,
    "set_rate": _set_rate,
    "keep_rate": _keep_rate,
    "conditions": _conditions,
    "logs": _logs,
    "probe": _probe,
    "begin": _begin,
    "put": _put,
    "commit": _commit,
    "get": _get,
    "measure": _measure,
    "cancel": _cancel,
    "check": _check,
    "activate": _activate,
    "mark_good": _mark_good,
    "roll_back": _roll_back,
    "status": _status,
    "run": _run,
    "daemon": _daemon,
}
