"""A plugin: a layer kind of the user's own (builder_host/plugins)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from builder_host.errors import BuilderError, NetworkError
from builder_host.expressions import Expr, inputs_of
from builder_host.network.definition import LayerDefinition
from builder_host.network.pointwise_kind import as_reference, evaluate_expression
from builder_host.network.rules import require, require_broadcast
from builder_host.network.tensor_type import TensorType

if TYPE_CHECKING:
    from builder_host.plugins.plugin import Plugin

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class PluginParams:
    """The plugin; equal identities (name, version, attributes) mean the same computation."""

    identity: str
    plugin: Plugin = field(repr=False, compare=False)


def plugin_params(plugin: Plugin) -> PluginParams:
    """Parameters of a plugin layer. Raises PluginError for a malformed plugin."""
    from builder_host.plugins.plugin import identity

    return PluginParams(identity(plugin), plugin)


class PluginKind:
    """Any inputs -> whatever the plugin says."""

    kind = "plugin"
    params_type = PluginParams

    def infer(self, params: PluginParams, inputs: Sequence[TensorType]) -> list[TensorType]:
        """Ask the plugin; an expression gives one output of the broadcast shape."""
        plugin = params.plugin
        try:
            types = list(plugin.output_types(inputs))
        except BuilderError:
            raise
        except Exception as error:
            raise NetworkError(
                f"plugin '{plugin.name}': {error or 'output_types failed'}"
                + ("" if isinstance(error, ValueError) else f" ({type(error).__name__})")
            ) from error
        require(bool(types), f"plugin '{plugin.name}' has no outputs")
        for found in types:
            require(
                isinstance(found, TensorType),
                f"plugin '{plugin.name}': output_types gave {found!r}, must be TensorTypes",
            )
        expr = plugin_expression(params, len(inputs))
        if expr is not None:
            shape = require_broadcast([t.shape for t in inputs])
            require(
                len(types) == 1 and types[0].shape == shape,
                f"plugin '{plugin.name}': its expression has one output of shape {shape}, "
                f"output_types says {', '.join(map(str, types))}",
            )
        return types

    def reference(self, params: PluginParams, inputs: Sequence[Array]) -> list[Array]:
        """The plugin's own, or that of its expression.

        Raises:
            NetworkError: it has neither.
        """
        plugin = params.plugin
        expr = plugin_expression(params, len(inputs))
        if expr is not None:
            shape = require_broadcast([np.shape(x) for x in inputs])
            kind = np.asarray(inputs[0]).dtype.kind
            value = as_reference(evaluate_expression(expr, inputs), kind)
            return [np.broadcast_to(value, shape).copy()]
        try:
            outputs = plugin.reference(inputs)
        except Exception as error:
            raise NetworkError(
                f"plugin '{plugin.name}': its reference failed: {type(error).__name__}: {error}"
            ) from error
        if outputs is None:
            raise NetworkError(
                f"plugin '{plugin.name}' has no reference, so that the plan cannot be checked; "
                "write reference(), or build without the check (--no-check, is_checked=False)"
            )
        return [_wide(np.asarray(output)) for output in outputs]


def plugin_expression(params: PluginParams, num_inputs: int) -> Expr | None:
    """The plugin's expression, if it has one. Raises NetworkError when it reads too far."""
    expr = params.plugin.expression(num_inputs)
    if expr is not None:
        last = max(inputs_of(expr), default=0)
        require(
            0 <= last < num_inputs,
            f"plugin '{params.plugin.name}': its expression reads input {last} of {num_inputs}",
        )
    return expr


def _wide(values: Array) -> Array:
    return as_reference(values, values.dtype.kind)


DEFINITION: LayerDefinition = PluginKind()
