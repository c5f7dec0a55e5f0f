"""Nodes that a plugin computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx

from builder_host.errors import NetworkError
from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import OperatorRule
from builder_host.importers.onnx.values import Value
from builder_host.plugins.registry import Creator, PluginNode, created

_KIND = onnx.AttributeProto


def plugin_rule(creator: Creator, op_type: str, domain: str) -> OperatorRule:
    """The translation of an operator into a plugin layer."""

    def translate(node: Node) -> Sequence[Value | None]:
        inputs = node.required()
        seen = PluginNode(
            node.proto.name or (node.proto.output[0] if node.proto.output else op_type),
            op_type,
            {name: _attribute_value(node, name) for name in sorted(node.attributes)},
            tuple(tensor.type for tensor in inputs),
        )
        plugin = created(creator, seen)
        layer = node.network.add_plugin(
            plugin, inputs, node.scratch_name(f"{seen.name}:plugin"), origin=node.where
        )
        if len(layer.outputs) < len(node.proto.output):
            raise NetworkError(
                f"the node has {len(node.proto.output)} outputs, plugin '{plugin.name}' makes "
                f"{len(layer.outputs)}"
            )
        node.created += layer.outputs
        return list(layer.outputs)

    return OperatorRule((op_type,), (0,), translate, domain)


def _attribute_value(node: Node, name: str) -> Any:
    """Python value of an attribute: number, text, tuple or array."""
    node.skip_attrs(name)
    stated = node.attributes[name]
    if stated.type == _KIND.TENSOR:
        return node.reader.values(stated.t, f"attribute '{name}'")
    if stated.type in (_KIND.INT, _KIND.FLOAT, _KIND.INTS, _KIND.FLOATS):
        value = onnx.helper.get_attribute_value(stated)
        return tuple(value) if stated.type in (_KIND.INTS, _KIND.FLOATS) else value
    if stated.type == _KIND.STRING:
        return stated.s.decode("utf-8", "replace")
    if stated.type == _KIND.STRINGS:
        return tuple(text.decode("utf-8", "replace") for text in stated.strings)
    raise NetworkError(
        f"attribute '{name}' is a graph or of another kind that plugins cannot be given"
    )
