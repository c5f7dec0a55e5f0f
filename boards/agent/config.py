"""How an agent serves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """How an agent serves.

    Attributes:
        store: folder of the plan store.
        key: secret that hosts must know, None for none.
        public_key: plans must be signed with its private half; None accepts any.
        software: name and version, told to hosts.
        ends_with_session: stop when the (one) host has gone: agents on a console or behind ssh.
        idle_s: such an agent also stops when nobody greets it for so long.
        alive: called in every round of the loop; returns seconds until it wants to be called again,
            None: it does not care.
    """

    store: str
    key: bytes | None = None
    public_key: bytes | None = None
    software: str = "edgeplan"
    ends_with_session: bool = False
    idle_s: float = 600.0
    alive: Callable[[], float | None] = field(default=lambda: None)
