"""The benchmark topologies in PyTorch: same weights, channels last, replayed as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own habit
from onnx import numpy_helper


class OnnxModule(torch.nn.Module):
    """Runs the operators that `topologies.py` uses."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Take nodes and weights of a model."""
        super().__init__()
        self.nodes = list(model.graph.node)
        self.weights = torch.nn.ParameterDict()
        self.names = {}
        for number, tensor in enumerate(model.graph.initializer):
            values = torch.from_numpy(numpy_helper.to_array(tensor).copy())
            self.names[tensor.name] = f"w{number}"
            self.weights[f"w{number}"] = torch.nn.Parameter(values, requires_grad=False)

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        """The output `prob`."""
        values = {"data": data}
        for node in self.nodes:
            inputs = [
                values[name] if name in values else self.weights[self.names[name]]
                for name in node.input
            ]
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            values[node.output[0]] = _OPERATORS[node.op_type](inputs, attributes)
        return values["prob"]


def _conv(x: list[torch.Tensor], a: dict) -> torch.Tensor:
    return F.conv2d(x[0], x[1], x[2], a["strides"], a["pads"][:2], 1, a["group"])


def _max_pool(x: list[torch.Tensor], a: dict) -> torch.Tensor:
    return F.max_pool2d(
        x[0], a["kernel_shape"], a["strides"], a["pads"][:2], ceil_mode=bool(a["ceil_mode"])
    )


_OPERATORS: dict[str, Callable[[list[torch.Tensor], dict], torch.Tensor]] = {
    "Conv": _conv,
    "Relu": lambda x, _: F.relu(x[0]),
    "Clip": lambda x, _: F.relu6(x[0]),
    "MaxPool": _max_pool,
    "GlobalAveragePool": lambda x, _: F.adaptive_avg_pool2d(x[0], 1),
    "Flatten": lambda x, _: torch.flatten(x[0], 1),
    "Gemm": lambda x, _: F.linear(x[0], x[1], x[2]),
    "Concat": lambda x, _: torch.cat(x, 1),
    "Add": lambda x, _: x[0] + x[1],
    "LRN": lambda x, a: F.local_response_norm(x[0], a["size"], a["alpha"], a["beta"], a["bias"]),
    "Softmax": lambda x, _: F.softmax(x[0], 1),
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
        module = OnnxModule(model).cuda().eval().to(dtype)
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
