"""Commands on plans: check, activate, mark_good, roll_back, status, run, daemon."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from boards.agent.arguments import memory_limit, release_id_of, seconds, texts, whole
from boards.agent.tasks import CHECK_SILENCE_S, forward
from boards.conditions import read_conditions
from boards.errors import CommandFailedError, StoreError
from boards.store.reader import check_name
from boards.store.records import ReleaseState

if TYPE_CHECKING:
    from boards.agent.child import ChildEnd
    from boards.agent.request import Request

log = logging.getLogger(__name__)

_DAEMON_UNIT = "edgeplan.service"
_DAEMON_TIMEOUT_S = 50.0  # a host waits 60 s for an answer
_DAEMON_ACTIONS = ("start", "stop", "restart", "is-active")


def check(request: Request) -> None:
    """Verify a stored release and try it; the answer is what was found."""
    agent = request.agent
    if agent.is_measuring:
        raise CommandFailedError(
            "another measurement or check is running on this board; wait", "busy"
        )
    name = check_name(str(request.fields["name"]))
    release_id = release_id_of(request.fields["release"])
    record = agent.store.record(name, release_id)
    key = agent.config.public_key
    task = {
        "task": "check",
        "path": str(agent.store.plan_path(name, release_id)),
        "source": f"'{name}' release {release_id}",
        "public_key": key.hex() if key else "",
        "allow": texts(request.fields.get("allow", [])),
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
                agent.store.check_release(name, found["number"], found["expires"], today=_today())
            except StoreError as error:
                found.clear()
                found.update(error=str(error), code="release")
        if "network" not in found:
            text = found.get("error") or (
                f"the plan brought its process down: {end.reason or f'status {end.status}'}"
                + (f": {end.last_words[-500:]}" if end.last_words else "")
            )
            if agent.store.generation(name) != release_id:  # what runs is not judged by a deploy
                agent.store.mark_bad(name, release_id, str(text)[:2000])
            log.warning("'%s': release %s failed its check: %s", name, release_id, text)
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
        task, on_answer, on_end, silence_s=CHECK_SILENCE_S, memory_bytes=memory_limit(None)
    )


def activate(request: Request) -> None:
    """Switch to a release."""
    name = check_name(str(request.fields["name"]))
    release_id = release_id_of(request.fields["release"])
    trial = request.fields.get("trial_s")
    store = request.agent.store
    record = store.record(name, release_id)
    store.check_release(name, record.number, record.expires, today=_today())
    store.activate(
        name, release_id, trial_s=None if trial is None else seconds(trial, 0.0, 86400.0 * 7)
    )
    log.info("'%s': release %s is active", name, release_id)
    request.reply({"previous": store.previous(name)})


def mark_good(request: Request) -> None:
    """Confirm the active release."""
    name = check_name(str(request.fields["name"]))
    request.agent.store.mark_good(name)
    log.info("'%s': marked good", name)
    request.reply()


def roll_back(request: Request) -> None:
    """Go back to the release before."""
    name = check_name(str(request.fields["name"]))
    reason = str(request.fields.get("reason", "asked for by a host"))[:2000]
    store = request.agent.store
    release = request.fields.get("release")
    if release is not None and store.generation(name) != release_id_of(release):
        request.reply({"active": store.generation(name)})  # done already: the answer was lost
        return
    active = store.roll_back(name, reason)
    log.warning("'%s': rolled back to %s: %s", name, active or "nothing", reason)
    request.reply({"active": active})


def status(request: Request) -> None:
    """All plans and releases, transfers that have not ended, and the conditions."""
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
    transfers = [
        {
            "sha256": file.sha256,
            "bytes": file.size_bytes,
            "pieces": len(file.pieces),
            "missing": file.num_missing,
            "copied": file.num_copied,
            "received": file.num_received,
            "received_bytes": file.received_bytes,
        }
        for file in request.agent.incoming.transfers()
    ]
    request.reply({"plans": plans, "transfers": transfers, "conditions": read_conditions()})


def run(request: Request) -> None:
    """One inference, of the active plan or of one that is being built."""
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
    output = agent.incoming.new_result()
    task = {
        "task": "run",
        "path": str(path),
        "public_key": key.hex() if key else "",
        "canary_seed": None if seed is None else whole(seed, 0, (1 << 64) - 1),
        "time": request.fields.get("time") is True,
        "canary": "plan" not in request.fields,
        "allow": texts(request.fields.get("allow", [])),
        "inputs": {str(k): str(agent.incoming.cached(v)) for k, v in inputs.items()},
        "output": str(output),
    }

    def keep(answer: Mapping[str, Any]) -> dict[str, Any]:
        sha256, size_bytes = agent.incoming.keep_result(output)
        return {**answer, "sha256": sha256, "size": size_bytes}

    forward(request, task, CHECK_SILENCE_S, keep, lambda: output.unlink(missing_ok=True))


def daemon(request: Request) -> None:
    """Start or stop the serving daemon through systemd."""
    action = request.fields["action"]
    if action not in _DAEMON_ACTIONS:
        raise CommandFailedError(
            f"action is {action!r}; known: {', '.join(_DAEMON_ACTIONS)}", "arguments"
        )

    def work() -> str:
        try:
            done = subprocess.run(
                ["systemctl", "--no-ask-password", action, _DAEMON_UNIT],  # noqa: S607 - system's
                capture_output=True,
                text=True,
                timeout=_DAEMON_TIMEOUT_S,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CommandFailedError(f"systemctl {action} {_DAEMON_UNIT}: {error}") from error
        text = (done.stdout + done.stderr).strip()
        if done.returncode and action != "is-active":
            raise CommandFailedError(f"systemctl {action} {_DAEMON_UNIT}: {text}")
        return text

    # a daemon that loads plans takes long to report, and the link must be served meanwhile
    request.agent.aside(request, work, lambda text: request.reply({"text": text}))


def _today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())
