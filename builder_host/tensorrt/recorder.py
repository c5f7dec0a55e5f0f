"""Recording of layers: what the groups of `add_*` methods share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from builder_host.tensorrt.layers.base import ILayer

if TYPE_CHECKING:
    from builder_host.tensorrt.network import ITensor

LayerKind = TypeVar("LayerKind", bound=ILayer)


class Recorder:
    """A list of layers; `INetworkDefinition` is one."""

    def add_kind(
        self,
        kind: type[LayerKind],
        inputs: Sequence[ITensor | None],
        num_outputs: int = 1,
        /,
        **values: Any,
    ) -> LayerKind:
        """Record a layer of a kind; `INetworkDefinition` overrides this."""
        raise NotImplementedError
