"""A host on a line, and a request of it that a command answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from boards.agent.child import Child, OnAnswer, OnEnd
from boards.errors import CommandFailedError
from boards.link.channels import BULK, COMMANDS
from boards.link.server_line import ServerLine

if TYPE_CHECKING:
    from boards.agent.agent import Agent

MAX_CHILDREN = 4  # at once, for all hosts
_SHORT_BYTES = 1024  # longer bodies travel behind commands


@dataclass(slots=True)
class Host:
    """One line with whoever is at its other end.

    Attributes:
        line: to the host; name: of the line, for messages.
        follows_logs: whether it wants log lines.
        greet_by: when a line without a session is given up, by the monotonic clock; None: never.
        children: processes that work for it, by the request's number.
    """

    line: ServerLine
    name: str
    follows_logs: bool = False
    greet_by: float | None = None
    children: dict[int, Child] = field(default_factory=dict)


class Request:
    """A request that a handler answers, at once or later."""

    def __init__(
        self, agent: Agent, host: Host, number: int, fields: Mapping[str, Any], body: bytes
    ) -> None:
        """Take its parts."""
        self.agent = agent
        self.host = host
        self.number = number
        self.fields = fields
        self.body = body
        self._session = host.line.connection

    def reply(self, fields: Mapping[str, Any] | None = None, body: bytes = b"") -> None:
        """Answer; the host's call ends."""
        self._send({"id": self.number, "ok": True, **(fields or {})}, body)

    def fail(self, text: str, code: str = "failed") -> None:
        """Answer that it cannot be done."""
        self._send({"id": self.number, "ok": False, "error": {"text": text, "code": code}}, b"")

    def notify(self, fields: Mapping[str, Any]) -> None:
        """Say something meanwhile."""
        self._send({"id": self.number, **fields}, b"")

    def start_child(
        self,
        task: Mapping[str, Any],
        on_answer: OnAnswer,
        on_end: OnEnd,
        *,
        silence_s: float,
        memory_bytes: int,
        candidate_s: float | None = None,
    ) -> None:
        """Do something in a process of its own, on behalf of this request; see `Child`.

        Raises:
            CommandFailedError: too many are at work.
        """
        if self.agent.num_children >= MAX_CHILDREN:
            raise CommandFailedError(f"{MAX_CHILDREN} tasks are running here; wait", "busy")

        def ended(end: Any) -> None:
            self.agent.forget_child(self.host, self.number)
            self.agent.attempt(self, lambda: on_end(end))

        child = Child(
            task,
            on_answer,
            ended,
            silence_s=silence_s,
            memory_bytes=memory_bytes,
            candidate_s=candidate_s,
        )
        self.host.children[self.number] = child
        self.agent.watch_child(child)

    @property
    def is_wanted(self) -> bool:
        """Whether the host that asked is still there."""
        return self._session is not None and self.host.line.connection is self._session

    def _send(self, fields: Mapping[str, Any], body: bytes) -> None:
        if self.is_wanted:
            self.host.line.send(BULK if len(body) > _SHORT_BYTES else COMMANDS, fields, body)
