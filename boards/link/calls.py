"""Requests whose answers a host awaits."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from boards.errors import CommandFailedError
from boards.link.channels import Outgoing
from boards.link.messages import Message

Notice = Callable[[Message], None]


class Call(Future[Message]):
    """A request whose answer is awaited."""

    def __init__(self, body_bytes: int, notice: Notice | None) -> None:
        """Take the length of its body, and who hears what the board says meanwhile."""
        super().__init__()
        self.body_bytes = body_bytes
        self.notice = notice
        self.outgoing: Outgoing | None = None

    @property
    def travelled_bytes(self) -> int:
        """Bytes of its body that were given to the line. Exact once the session has ended."""
        if self.outgoing is None:
            return 0
        head_bytes = self.outgoing.size - self.body_bytes
        return max(0, self.outgoing.num_given_bytes - head_bytes)


def failure(name: str, error: object) -> CommandFailedError:
    """The error of a reply that is not ok; `name` is the board's."""
    if isinstance(error, dict):
        return CommandFailedError(
            f"{name}: {error.get('text', 'failed')}", str(error.get("code", "failed"))
        )
    return CommandFailedError(f"{name}: the board failed without saying why")
