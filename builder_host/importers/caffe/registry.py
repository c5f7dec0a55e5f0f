"""Layer types that can be imported: each module in `ops/` states `TYPES` and `convert`."""

from __future__ import annotations

import functools
from collections.abc import Callable

from builder_host.importers.caffe import ops
from builder_host.importers.caffe.layer import CaffeLayer
from builder_host.registry import modules_by_claim

Convert = Callable[[CaffeLayer], None]


@functools.cache
def converters() -> dict[str, Convert]:
    """Convert function per layer type, sorted. Raises RegistryError: two modules claim one type."""
    return {name: module.convert for name, module in modules_by_claim(ops, "TYPES").items()}
