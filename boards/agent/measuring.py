"""Commands on candidates: measure, cancel. What a candidate does wrong is its result."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from boards.agent.arguments import device_name, memory_limit, seconds, texts, whole
from boards.agent.tasks import START_SILENCE_S
from boards.conditions import conditions_text, read_conditions
from boards.errors import CommandFailedError

if TYPE_CHECKING:
    from boards.agent.child import ChildEnd
    from boards.agent.request import Request

log = logging.getLogger(__name__)

_CANCELLED = "the host cancelled it"


class _Measuring:
    """Times the candidates of one bundle; a process that dies is started again without its last."""

    def __init__(self, request: Request) -> None:
        fields = request.fields
        self.request = request
        self.path = str(request.agent.incoming.cached(fields["sha256"]))
        self.device = device_name(fields.get("device", ""))
        self.allow = texts(fields.get("allow", []))
        self.candidate_s = seconds(fields.get("candidate_s", 20.0), 0.1, 600.0)
        self.memory_bytes = memory_limit(fields.get("memory_bytes"))
        self.done: set[int] = {whole(i, 0, 1 << 20) for i in fields.get("skip", [])}
        self.is_finished = False
        self.num_done_at_start = -1

    def start(self) -> None:
        self.num_done_at_start = len(self.done)
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
            silence_s=START_SILENCE_S,
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
        if end.reason == _CANCELLED:
            self.request.fail(f"measuring: {_CANCELLED}", "cancelled")
            return
        if end.candidate >= 0 and end.candidate not in self.done:
            self.fail_candidate(end.candidate, end.reason or f"it ended with status {end.status}")
        if len(self.done) == self.num_done_at_start:
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


def measure(request: Request) -> None:
    """Time the candidates of a bundle."""
    if request.agent.is_measuring:
        raise CommandFailedError(
            "another measurement or check is running on this board; wait", "busy"
        )
    _Measuring(request).start()


def cancel(request: Request) -> None:
    """End the process that works for another request."""
    child = request.host.children.get(whole(request.fields["call"], 0, 1 << 53))
    if child is not None:
        child.kill(_CANCELLED)
    request.reply({"cancelled": child is not None})
