"""Layer types that can be imported: each module in `ops/` states `TYPES` and `convert`."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable

from builder_host.importers.caffe import ops
from builder_host.importers.caffe.layer import CaffeLayer

Convert = Callable[[CaffeLayer], None]


@functools.cache
def converters() -> dict[str, Convert]:
    """Convert function per Caffe layer type, sorted by type.

    Raises:
        RuntimeError: two modules claim one type.
    """
    found: dict[str, tuple[str, Convert]] = {}
    for module_info in pkgutil.iter_modules(ops.__path__):
        module = importlib.import_module(f"{ops.__name__}.{module_info.name}")
        for type_name in module.TYPES:
            if type_name in found:
                raise RuntimeError(
                    f"Caffe layer type '{type_name}' is in ops/{found[type_name][0]}.py "
                    f"and in ops/{module_info.name}.py"
                )
            found[type_name] = (module_info.name, module.convert)
    return {name: found[name][1] for name in sorted(found)}
