"""Options of the runtime."""

from __future__ import annotations

from dataclasses import dataclass

from runtime_edge.memory import Allocator


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """How an engine behaves after it is loaded.

    Attributes:
        strict: any allocation of device memory or of result arrays by the runtime after `load` is
            a StrictModeError: contexts need `arena=`, `execute` needs `outputs=`.
        allocator: where the runtime takes memory from when the caller supplies none; None means
            its own anonymous mappings.
    """

    strict: bool = False
    allocator: Allocator | None = None
