"""How many arithmetic operations a problem is, for reports and roofs; a multiply-add counts two."""

from __future__ import annotations

import math

from builder_host.expressions import num_operations
from builder_host.kernels.family import Problem


def count_operations(problem: Problem) -> int:
    """Operations of the layer and of its epilogue.

    Products and convolutions are counted as the plain definition has them, whatever algorithm runs
    (Winograd does fewer). Everything else counts one operation per element that it reads or
    writes, whichever is more.
    """
    outputs = math.prod(problem.outputs[0].shape)
    total = _per_output(problem) * outputs
    if total == 0:
        read = sum(math.prod(layout.shape) for layout in problem.inputs[: problem.num_own_inputs])
        total = max(outputs, read)
    if problem.epilogue is not None:
        total += outputs * num_operations(problem.epilogue.expr)
    return total


def _per_output(problem: Problem) -> int:
    kind, inputs = problem.kind, problem.inputs
    if kind == "convolution":
        return 2 * math.prod(inputs[1].shape[1:])
    if kind == "pooled_convolution":
        window: tuple[int, ...] = problem.params.pooling.window
        return math.prod(window) * (2 * math.prod(inputs[1].shape[1:]) + 1)
    if kind == "deconvolution":
        # every input element meets every tap; seen from an output, the strides skip most of them
        taps = 2 * math.prod(inputs[0].shape) * math.prod(inputs[1].shape[1:])
        return -(-taps // max(math.prod(problem.outputs[0].shape), 1))
    if kind == "fully_connected":
        return 2 * inputs[1].shape[1]
    if kind == "matrix_multiply":
        return 2 * inputs[0].shape[-2 if problem.params.transpose_a else -1]
    if kind == "pooling":
        return math.prod(problem.params.window)
    return 0
