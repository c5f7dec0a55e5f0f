"""An activation of your own: one scalar expression.

edgeplan build model.onnx -o model.plan --plugins examples/plugins/snake.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from builder_host.expressions import Binary, Const, Expr, Input, Unary
from builder_host.plugins import Plugin, PluginNode, PluginRegistry, TensorType

PLUGINS = PluginRegistry()


@dataclass(frozen=True)
class Snake(Plugin):
    """X + sin(alpha x)^2 / alpha: keeps what is periodic in x."""

    name = "Snake"
    alpha: float = 1.0

    def output_types(self, inputs: Sequence[TensorType]) -> list[TensorType]:
        """The type of its one input."""
        if len(inputs) != 1 or not self.alpha > 0:
            raise ValueError(f"takes one input and alpha above 0, got {len(inputs)}, {self.alpha}")
        return [inputs[0]]

    def expression(self, num_inputs: int) -> Expr:
        """Fuses into the layer before it, on every device."""
        del num_inputs
        wave = Unary("sin", Binary("mul", Input(0), Const(self.alpha)))
        return Binary("add", Input(0), Binary("div", Binary("mul", wave, wave), Const(self.alpha)))


@PLUGINS.onnx("example.audio", "Snake")
def _from_onnx(node: PluginNode) -> Snake:
    return Snake(float(node.attributes.get("alpha", 1.0)))


@PLUGINS.caffe("Snake")
def _from_caffe(node: PluginNode) -> Snake:
    return Snake(float(node.attributes.get("snake_param", {}).get("alpha", 1.0)))


@PLUGINS.uff("_Snake")
def _from_uff(node: PluginNode) -> Snake:
    return Snake(float(node.attributes.get("alpha", 1.0)))
