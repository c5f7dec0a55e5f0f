"""Operations that can be imported: each module in `ops/` states `OPERATIONS` and `convert`."""

from __future__ import annotations

import functools
from collections.abc import Callable

from builder_host.importers.uff import ops
from builder_host.importers.uff.node import NodeView, Value
from builder_host.registry import modules_by_claim

Convert = Callable[[NodeView], Value]


@functools.cache
def converters() -> dict[str, Convert]:
    """Convert function per operation, sorted. Raises RegistryError: two modules claim one."""
    return {name: module.convert for name, module in modules_by_claim(ops, "OPERATIONS").items()}
