"""Requests that a child process answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from boards.agent.arguments import memory_limit

if TYPE_CHECKING:
    from boards.agent.child import ChildEnd
    from boards.agent.request import Request

START_SILENCE_S = 60.0  # a board may take long to import CUDA the first time
CHECK_SILENCE_S = 300.0


def forward(
    request: Request,
    task: Mapping[str, Any],
    silence_s: float,
    finish: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda answer: answer,
    clean: Callable[[], None] = lambda: None,
) -> None:
    """Let a child do a task with one answer, and answer with it."""
    found: dict[str, Any] = {}

    def on_end(end: ChildEnd) -> None:
        try:
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
        finally:
            clean()

    request.start_child(
        task, found.update, on_end, silence_s=silence_s, memory_bytes=memory_limit(None)
    )
