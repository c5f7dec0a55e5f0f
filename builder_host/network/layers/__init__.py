"""Layer kinds: one module each, found by place; `definition(kind)` loads it on first use."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING

from builder_host.errors import NetworkError

if TYPE_CHECKING:
    from builder_host.network.definition import LayerDefinition


@functools.cache
def kinds() -> tuple[str, ...]:
    """Names of all layer kinds, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


@functools.cache
def definition(kind: str) -> LayerDefinition:
    """Definition of one kind. Raises NetworkError for an unknown one."""
    if kind not in kinds():
        raise NetworkError(f"unknown layer kind '{kind}'; known: {', '.join(kinds())}")
    module = importlib.import_module(f"{__name__}.{kind}")
    found: LayerDefinition = module.DEFINITION
    return found
