"""Operations that can be imported: each module in `ops/` states `OPERATIONS` and `convert`."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable

from builder_host.importers.uff import ops
from builder_host.importers.uff.node import NodeView, Value

Convert = Callable[[NodeView], Value]


@functools.cache
def converters() -> dict[str, Convert]:
    """Convert function per operation, sorted.

    Raises:
        RuntimeError: two modules claim one operation.
    """
    found: dict[str, tuple[str, Convert]] = {}
    for info in pkgutil.iter_modules(ops.__path__):
        module = importlib.import_module(f"{ops.__name__}.{info.name}")
        for operation in module.OPERATIONS:
            if operation in found:
                raise RuntimeError(
                    f"UFF operation '{operation}' is in ops/{found[operation][0]}.py "
                    f"and in ops/{info.name}.py"
                )
            found[operation] = (info.name, module.convert)
    return {name: found[name][1] for name in sorted(found)}
