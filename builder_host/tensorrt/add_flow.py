"""`add_*` methods of recurrent layers, loops, conditionals and assertions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from builder_host.tensorrt import layers as kinds
from builder_host.tensorrt.control_flow import IIfConditional, ILoop
from builder_host.tensorrt.enums import RNNDirection, RNNInputMode, RNNOperation
from builder_host.tensorrt.recorder import Recorder

if TYPE_CHECKING:
    from builder_host.tensorrt.network import ITensor


class FlowMethods(Recorder):
    """Part of `INetworkDefinition`."""

    _loops: list[ILoop]

    def add_rnn(
        self,
        input: ITensor,
        layer_count: int,
        hidden_size: int,
        max_seq_length: int,
        op: RNNOperation,
        mode: RNNInputMode,
        direction: RNNDirection,
        weights: Any,
        bias: Any = None,
    ) -> kinds.IRNNLayer:
        """Recurrent layers with packed weights (TensorRT 1 to 7)."""
        return self.add_kind(
            kinds.IRNNLayer,
            [input],
            3 if op is RNNOperation.LSTM else 2,
            num_layers=layer_count,
            hidden_size=hidden_size,
            max_seq_length=max_seq_length,
            op=op,
            input_mode=mode,
            direction=direction,
            weights=weights,
            bias=bias,
        )

    def add_rnn_v2(
        self,
        input: ITensor,
        layer_count: int,
        hidden_size: int,
        max_seq_length: int,
        op: RNNOperation,
    ) -> kinds.IRNNv2Layer:
        """Recurrent layers with weights per gate (TensorRT 4 to 9)."""
        return self.add_kind(
            kinds.IRNNv2Layer,
            [input],
            3 if op is RNNOperation.LSTM else 2,
            num_layers=layer_count,
            hidden_size=hidden_size,
            max_seq_length=max_seq_length,
            op=op,
        )

    def add_loop(self) -> ILoop:
        """A loop, unrolled when the network is built."""
        loop = ILoop(self, f"(Unnamed Loop* {len(self._loops)})")  # type: ignore[arg-type]
        self._loops.append(loop)
        return loop

    def add_if_conditional(self) -> IIfConditional:
        """Two branches, one of which is chosen."""
        return IIfConditional(self, "(Unnamed IfConditional*)")  # type: ignore[arg-type]

    def add_assertion(self, condition: ITensor, message: str) -> kinds.IAssertionLayer:
        """A condition that is checked when the network is built."""
        return self.add_kind(kinds.IAssertionLayer, [condition], 0, message=message)
