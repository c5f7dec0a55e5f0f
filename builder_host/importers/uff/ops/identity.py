"""Identity: another name for its input."""

from __future__ import annotations

from builder_host.importers.uff.node import NodeView, Value

OPERATIONS = ("Identity",)


def convert(view: NodeView) -> Value:
    """No layer."""
    view.require_inputs(1)
    return view.values[0]
