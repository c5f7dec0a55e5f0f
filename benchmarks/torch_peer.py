"""The benchmark topologies in PyTorch: same weights, channels last, replayed as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own habit
from onnx import numpy_helper


def straight_line_module(model: onnx.ModelProto) -> torch.nn.Module:
    """A module with one statement per node, as a person would write it.

    An interpreter over the nodes would be traced by torch.compile through its loop, which runs into
    Dynamo's limits on large networks and compares it unfairly.
    """
    weights: dict[str, str] = {}
    module = torch.nn.Module()
    for tensor in model.graph.initializer:
        weights[tensor.name] = f"w{len(weights)}"
        values = torch.from_numpy(numpy_helper.to_array(tensor).copy())
        parameter = torch.nn.Parameter(values, requires_grad=False)
        module.register_parameter(weights[tensor.name], parameter)
    names = {"data": "data"}
    lines = ["def forward(self, data):"]
    for number, node in enumerate(model.graph.node):
        inputs = [names[i] if i in names else f"self.{weights[i]}" for i in node.input]
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        names[node.output[0]] = f"v{number}"
        lines.append(f"    v{number} = " + _STATEMENTS[node.op_type](inputs, attributes))
    lines.append(f"    return {names['prob']}")
    scope = {"F": F, "torch": torch}
    exec("\n".join(lines), scope)  # noqa: S102 - text made above from our own topologies
    module.__class__ = type("Network", (torch.nn.Module,), {"forward": scope["forward"]})
    return module


def _conv(x: list[str], a: dict) -> str:
    return f"F.conv2d({x[0]}, {x[1]}, {x[2]}, {a['strides']}, {a['pads'][:2]}, 1, {a['group']})"


def _max_pool(x: list[str], a: dict) -> str:
    window = f"{a['kernel_shape']}, {a['strides']}, {a['pads'][:2]}"
    return f"F.max_pool2d({x[0]}, {window}, ceil_mode={bool(a['ceil_mode'])})"


def _lrn(x: list[str], a: dict) -> str:
    return f"F.local_response_norm({x[0]}, {a['size']}, {a['alpha']}, {a['beta']}, {a['bias']})"


_STATEMENTS: dict[str, Callable[[list[str], dict], str]] = {
    "Conv": _conv,
    "Relu": lambda x, _: f"F.relu({x[0]})",
    "Clip": lambda x, _: f"F.relu6({x[0]})",
    "MaxPool": _max_pool,
    "GlobalAveragePool": lambda x, _: f"F.adaptive_avg_pool2d({x[0]}, 1)",
    "Flatten": lambda x, _: f"torch.flatten({x[0]}, 1)",
    "Gemm": lambda x, _: f"F.linear({x[0]}, {x[1]}, {x[2]})",
    "Concat": lambda x, _: f"torch.cat([{', '.join(x)}], 1)",
    "Add": lambda x, _: f"{x[0]} + {x[1]}",
    "LRN": _lrn,
    "Softmax": lambda x, _: f"F.softmax({x[0]}, 1)",
}


class Replay:
    """A module captured in a CUDA graph."""

    def __init__(
        self, model: onnx.ModelProto, values: np.ndarray, *, half: bool, mode: str
    ) -> None:
        """Capture.

        Args:
            model: topology with weights.
            values: input, float32.
            half: compute in float16.
            mode: `cudnn`, or a mode of torch.compile such as `max-autotune-no-cudagraphs`.
        """
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        dtype = torch.float16 if half else torch.float32
        module = straight_line_module(model).cuda().eval().to(dtype)
        for parameter in module.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        function = module if mode == "cudnn" else torch.compile(module, mode=mode)
        self.kept = (module, function)  # the graph reads the weights' memory
        self.x = torch.from_numpy(values).cuda()
        with torch.inference_mode():
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                for _ in range(3):
                    self._run(function, dtype)
            torch.cuda.current_stream().wait_stream(stream)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.y = self._run(function, dtype)

    def _run(self, function: Callable, dtype: torch.dtype) -> torch.Tensor:
        x = self.x.to(dtype).contiguous(memory_format=torch.channels_last)
        return function(x).float()

    def result(self) -> np.ndarray:
        """Replay once and read the output."""
        self.graph.replay()
        torch.cuda.synchronize()
        return self.y.cpu().numpy()

    def replay(self) -> None:
        """Enqueue one replay."""
        self.graph.replay()
