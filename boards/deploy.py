"""Deploying: send a plan, let the board check it, switch to it, and go back when it fails there."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from boards.errors import CommandFailedError
from boards.link.file_transfer import BoardLink, Progress, Sending, send_plan
from boards.link.messages import Message

_CHECK_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a deployment did.

    Attributes:
        name: under which; release: id on the board.
        sending: what travelled.
        steps: checks that the board passed, in order.
        network: name inside the plan.
        checked_us: latency there; built_us: latency that the plan records; None: not known.
        notes: of the board, e.g. why it is slower than at build.
        is_active: whether it is the active release now; previous: the one before, or empty.
    """

    name: str
    release: str
    sending: Sending
    steps: tuple[str, ...]
    network: str
    checked_us: float | None
    built_us: float | None
    notes: tuple[str, ...] = field(default=())
    is_active: bool = False
    previous: str = ""


def deploy(
    link: BoardLink,
    path: str | os.PathLike[str],
    name: str,
    *,
    is_activated: bool = False,
    trial_s: float | None = None,
    allow: Sequence[str] = (),
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> Deployment:
    """Bring a plan to a board.

    Before the switch the board verifies hashes and signature, fingerprint, free memory, release
    number and expiry, and runs the canary in a process of its own. After the switch it loads the
    plan once more by its active name; if that fails it goes back by itself.

    Args:
        link: to the board.
        path: PLAN file.
        name: under which the board keeps it.
        is_activated: switch to it when every check has passed.
        trial_s: the new release stays on trial until somebody on the board marks it good, and the
            board goes back after so many seconds (0: after three resets); None: it is good at once.
        allow: fingerprint fields that may differ.
        progress: called with pieces sent and pieces to send.
        tell: called with each check that was passed.

    Raises:
        PlanError: the file is no sound plan.
        CommandFailedError: a check failed; `code` says which. The active release is as before.
        LinkError: the board cannot be reached.
    """
    release, sending = send_plan(link, path, name, progress)
    steps: list[str] = []

    def on_notice(message: Message) -> None:
        steps.append(str(message.fields.get("step", ""))[:200])
        if tell is not None:
            tell(steps[-1])

    fields = {"name": name, "release": release, "allow": list(allow)}
    found = link.call("check", fields, timeout_s=_CHECK_TIMEOUT_S, notice=on_notice).fields
    previous = ""
    if is_activated:
        answer = link.call(
            "activate",
            {"name": name, "release": release, "trial_s": 0 if trial_s is None else trial_s},
        )
        previous = str(answer.fields.get("previous", ""))
        _confirm(link, name, release, allow, is_good=trial_s is None)
        steps.append("active")
    return Deployment(
        name,
        release,
        sending,
        tuple(dict.fromkeys(steps)),
        str(found.get("network", "")),
        found.get("checked_us"),
        found.get("built_us"),
        tuple(str(note) for note in found.get("notes", ())),
        is_activated,
        previous,
    )


def _confirm(
    link: BoardLink, name: str, release: str, allow: Sequence[str], *, is_good: bool
) -> None:
    """Run the active plan once; go back when it fails, else mark it good if that is wanted."""
    try:
        fields = {"name": name, "inputs": {}, "canary_seed": 0, "allow": list(allow)}
        link.call("run", fields, timeout_s=_CHECK_TIMEOUT_S)
    except CommandFailedError as error:
        fields = {"name": name, "release": release, "reason": str(error)[:1000]}
        back = link.call("roll_back", fields)
        active = back.fields.get("active") or "nothing"
        raise CommandFailedError(
            f"{error}; release {release} was taken back, active is {active}", error.code
        ) from error
    if is_good:
        link.call("mark_good", {"name": name})
