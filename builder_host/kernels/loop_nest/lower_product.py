"""Matrix products: the fallback behind the gemm family."""

from __future__ import annotations

from builder_host.codegen.indices import Index, Var, as_index, dot
from builder_host.codegen.loop_nest import Local, Value, convert
from builder_host.codegen.nest import Emit, Nest, Reduce
from builder_host.expressions import Binary, Input
from builder_host.kernels.family import Problem
from builder_host.kernels.loop_nest.lower_reduce import ReducedAxes
from builder_host.kernels.loop_nest.operands import (
    Lowering,
    NotLowerableError,
    Operands,
    apply,
    iterate,
    sum_type,
)
from builder_host.layouts import Layout
from planformat.datatypes import DataType

_F32 = DataType.FLOAT32
_PRODUCT = Binary("mul", Input(0), Input(1))
_WIDE_INTEGERS = (DataType.INT32, DataType.INT64, DataType.UINT32, DataType.UINT64)


def lower_fully_connected(problem: Problem) -> list[Nest]:
    """y[n,k] = sum over all of x[n] times w[k], in the order of x's memory."""
    operands = Operands(problem)
    x = problem.inputs[0]
    total_type = _sum_type(x, problem.inputs[1])
    over = iterate(problem.outputs[0], problem.outputs[0].shape)
    n, k = over.coords
    folded = ReducedAxes(x, range(1, len(x.shape)))
    source = folded.source([n], keeps_dims=False)
    steps = [1]
    for extent in reversed(x.shape[2:]):
        steps.insert(0, steps[0] * extent)
    flat = dot(source[1:], steps[: len(source) - 1])
    product = apply(_PRODUCT, [operands.load(0, source), operands.load(1, [k, flat])])
    total = _total(total_type)
    if problem.num_own_inputs > 2:
        total = apply(Binary("add", Input(0), Input(1)), [total, operands.load(2, [k])])
    stages = (
        Reduce("total", total_type, "add", 0.0, product, folded.variables, folded.conditions),
        Emit((operands.store(0, over.coords, total),)),
    )
    return [operands.nest(over, stages, is_vector=False)]


def lower_matrix_multiply(problem: Problem) -> list[Nest]:
    """Lanes over columns, or over the shared dimension when both sides are contiguous in it."""
    operands = Operands(problem)
    params, (a, b) = problem.params, problem.inputs[:2]
    total_type = _sum_type(a, b)
    if len(a.shape) < 2 or len(b.shape) < 2:
        raise NotLowerableError("matrix_multiply needs matrices")
    over = iterate(problem.outputs[0], problem.outputs[0].shape)
    *batch, m, n = over.coords
    shared = Var("r", a.shape[-2] if params.transpose_a else a.shape[-1])
    r = as_index(shared)
    left = _batched(batch, a.shape, [r, m] if params.transpose_a else [m, r])
    right = _batched(batch, b.shape, [n, r] if params.transpose_b else [r, n])
    product = apply(_PRODUCT, [operands.load(0, left), operands.load(1, right)])
    stages = (
        Reduce("total", total_type, "add", 0.0, product, (shared,)),
        Emit((operands.store(0, over.coords, _total(total_type)),)),
    )
    is_dot = params.transpose_b and not params.transpose_a
    return [operands.nest(over, stages, is_vector=not is_dot)]


def _sum_type(a: Layout, b: Layout) -> DataType:
    """As `sum_type`; INT64 for two tensors of one wider integer type."""
    if a.dtype is b.dtype and a.dtype in _WIDE_INTEGERS:
        return DataType.INT64
    return sum_type(a, b)


def _total(total_type: DataType) -> Value:
    """The finished sum: integers stay exact, all else goes on as FLOAT32."""
    total = Local("total", total_type)
    return total if total_type is DataType.INT64 else convert(total, _F32)


def _batched(batch: list[Index], shape: tuple[int, ...], matrix: list[Index]) -> list[Index]:
    """Coordinates of a broadcast operand; the matrix dimensions are never broadcast."""
    rank = len(shape) - 2
    kept = batch[len(batch) - rank :] if rank else []
    return [Index() if e == 1 else c for c, e in zip(kept, shape[:rank], strict=True)] + matrix


LOWERINGS: dict[str, Lowering] = {
    "fully_connected": lower_fully_connected,
    "matrix_multiply": lower_matrix_multiply,
}
