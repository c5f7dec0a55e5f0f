"""Layers of every generated kind with inputs and float64 references, for any device."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from builder_host.expressions import Binary, Input, Unary, relu
from builder_host.kernels.family import Problem
from builder_host.network.layers import definition
from builder_host.network.layers.activation import ActivationParams
from builder_host.network.layers.arg_reduce import ArgReduceParams
from builder_host.network.layers.bit_cast import BitCastParams
from builder_host.network.layers.box_selection import BoxSelectionParams
from builder_host.network.layers.broadcast import BroadcastParams
from builder_host.network.layers.cache_update import CacheUpdateParams
from builder_host.network.layers.cast import CastParams
from builder_host.network.layers.concatenation import ConcatenationParams
from builder_host.network.layers.convolution import ConvolutionParams
from builder_host.network.layers.cumulative import CumulativeParams
from builder_host.network.layers.deconvolution import DeconvolutionParams
from builder_host.network.layers.deformable_convolution import DeformableConvolutionParams
from builder_host.network.layers.elementwise import ElementwiseParams
from builder_host.network.layers.fully_connected import FullyConnectedParams
from builder_host.network.layers.gather import GatherParams
from builder_host.network.layers.gather_elements import GatherElementsParams
from builder_host.network.layers.gather_nd import GatherNdParams
from builder_host.network.layers.grid_sample import GridSampleParams
from builder_host.network.layers.lrn import LrnParams
from builder_host.network.layers.matrix_multiply import MatrixMultiplyParams
from builder_host.network.layers.max_pool_indices import MaxPoolIndicesParams
from builder_host.network.layers.non_zero import NonZeroParams
from builder_host.network.layers.normalize import NormalizeParams
from builder_host.network.layers.pad import PadParams
from builder_host.network.layers.parametric_relu import ParametricReluParams
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.layers.pooling import PoolingParams
from builder_host.network.layers.reduce import ReduceParams
from builder_host.network.layers.reformat import ReformatParams
from builder_host.network.layers.reshape import ReshapeParams
from builder_host.network.layers.resize import ResizeParams
from builder_host.network.layers.reverse_sequence import ReverseSequenceParams
from builder_host.network.layers.roi_align import RoiAlignParams
from builder_host.network.layers.roi_pool import RoiPoolParams
from builder_host.network.layers.scale import ScaleParams
from builder_host.network.layers.scatter_elements import ScatterElementsParams
from builder_host.network.layers.scatter_nd import ScatterNdParams
from builder_host.network.layers.select import SelectParams
from builder_host.network.layers.slice import SliceParams
from builder_host.network.layers.softmax import SoftmaxParams
from builder_host.network.layers.top_k import TopKParams
from builder_host.network.layers.transpose import TransposeParams
from builder_host.network.layers.unary import UnaryParams
from builder_host.network.network import Epilogue
from builder_host.network.tensor_type import TensorType
from planformat.datatypes import DataType, TensorFormat
from support.typed_kernels import NUMPY_TYPES, layout, problem

LINEAR = TensorFormat.LINEAR
F32, I64, I32, U8, BOOL = (
    DataType.FLOAT32,
    DataType.INT64,
    DataType.INT32,
    DataType.UINT8,
    DataType.BOOL,
)


@dataclass(frozen=True)
class Case:
    """A layer on typed shapes; `terms` bounds the additions per output element."""

    kind: str
    params: Any
    inputs: tuple[tuple[tuple[int, ...], DataType], ...]
    terms: int = 4
    constant: tuple[int, ...] = ()
    low: int = -100
    high: int = 100
    epilogue: Epilogue | None = None
    is_positive: bool = False


def f32(*shapes: tuple[int, ...]) -> tuple[tuple[tuple[int, ...], DataType], ...]:
    return tuple((shape, F32) for shape in shapes)


def resize_case(shape: tuple[int, ...], out: tuple[int, ...], mode: str, coord: str) -> Case:
    scales = tuple(o / i for o, i in zip(out, shape, strict=True))
    params = ResizeParams(out, mode, coord, "round_prefer_floor", scales)  # type: ignore[arg-type]
    return Case("resize", params, f32(shape), 64)


def pool_params(mode: str, include: bool, out: tuple[int, ...]) -> PoolingParams:
    rank = len(out)
    return PoolingParams(
        mode,
        (3,) * rank,
        (2,) * rank,
        (1,) * rank,
        (1,) * rank,
        out,
        (1,) * rank,
        include,  # type: ignore[arg-type]
    )


def pool_case(mode: str, include: bool, shape: tuple[int, ...], out: tuple[int, ...]) -> Case:
    return Case("pooling", pool_params(mode, include, out), f32(shape), 9)


X4 = (2, 19, 7, 9)
SWISH = Binary("mul", Input(0), Unary("sigmoid", Input(0)))
CASES: dict[str, Case] = {
    "relu": Case("activation", ActivationParams("relu"), f32(X4)),
    "gelu": Case("activation", ActivationParams("gelu_erf"), f32(X4), 8),
    "mish": Case("activation", ActivationParams("mish"), f32(X4), 16),
    "selu": Case("activation", ActivationParams("selu", 1.67, 1.05), f32(X4), 8),
    "add_residual": Case("elementwise", ElementwiseParams("add"), f32(X4, X4)),
    "mul_channel": Case("elementwise", ElementwiseParams("mul"), f32(X4, (1, 19, 1, 1)), 4, (1,)),
    "mul_channel_live": Case("elementwise", ElementwiseParams("mul"), f32(X4, (2, 19, 1, 1))),
    "add_row": Case("elementwise", ElementwiseParams("add"), f32(X4, (9,))),
    "sub_scalar": Case("elementwise", ElementwiseParams("sub"), f32(X4, ())),
    "less": Case("elementwise", ElementwiseParams("lt"), f32(X4, X4)),
    "pow": Case("elementwise", ElementwiseParams("pow"), f32((3, 50), (50,)), 8, is_positive=True),
    "int_add": Case("elementwise", ElementwiseParams("add"), (((5, 7), I64), ((7,), I64))),
    "int_floor_div": Case(
        "elementwise", ElementwiseParams("floor_div"), (((5, 7), I32), ((7,), I32)), low=1
    ),
    "int_mod": Case("elementwise", ElementwiseParams("mod"), (((50, 7), I64), ((7,), I64)), low=3),
    "int_equal": Case(
        "elementwise", ElementwiseParams("eq"), (((50, 7), I64), ((7,), I64)), low=95
    ),
    "logic": Case("elementwise", ElementwiseParams("xor"), (((50, 7), BOOL), ((7,), BOOL))),
    "not": Case("unary", UnaryParams("not"), (((50, 7), BOOL),)),
    "sin": Case("unary", UnaryParams("sin"), f32((3, 41))),
    "erf": Case("unary", UnaryParams("erf"), f32((3, 41))),
    "scale": Case("scale", ScaleParams(True, True, False), f32(X4, (1, 19, 1, 1), (1, 19, 1, 1))),
    "prelu": Case("parametric_relu", ParametricReluParams(), f32(X4, (19, 1, 1)), 4, (1,)),
    "select": Case("select", SelectParams(), (((7, 9), BOOL), (X4, F32), ((19, 1, 1), F32))),
    "pointwise": Case("pointwise", PointwiseParams(Binary("add", SWISH, Input(1))), f32(X4, X4), 8),
    "copy_int": Case("pointwise", PointwiseParams(Input(0)), ((X4, I64),)),
    "cast_to_u8": Case("cast", CastParams(U8), f32(X4), low=0),
    "cast_to_bool": Case("cast", CastParams(BOOL), (((40,), I32),), low=-1, high=2),
    "cast_from_u8": Case("cast", CastParams(F32), ((X4, U8),), low=0),
    "cast_to_half": Case("cast", CastParams(DataType.FLOAT16), f32(X4), 1 << 14),
    "cast_from_half": Case("cast", CastParams(F32), ((X4, DataType.FLOAT16),)),
    "cast_from_double": Case("cast", CastParams(F32), ((X4, DataType.FLOAT64),)),
    "reformat": Case("reformat", ReformatParams(LINEAR), f32(X4)),
    "transpose": Case("transpose", TransposeParams((0, 2, 3, 1)), f32(X4)),
    "transpose_2d": Case("transpose", TransposeParams((1, 0)), f32((70, 130))),
    "transpose_int": Case("transpose", TransposeParams((2, 0, 1)), (((3, 4, 5), I64),)),
    "slice": Case("slice", SliceParams((0, 3, 6, 1), (2, 9, 3, 4), (1, 1, -2, 2)), f32(X4)),
    "slice_block": Case("slice", SliceParams((0, 16, 0, 0), (2, 3, 7, 9), (1, 1, 1, 1)), f32(X4)),
    "broadcast": Case("broadcast", BroadcastParams(X4), f32((19, 1, 9))),
    "reshape": Case("reshape", ReshapeParams((2, 7, 19, 9)), f32(X4)),
    "reshape_flat": Case("reshape", ReshapeParams((2, 19 * 63)), f32(X4)),
    "concat_channels": Case(
        "concatenation", ConcatenationParams(1), f32((2, 16, 3, 5), (2, 24, 3, 5), (2, 7, 3, 5))
    ),
    "concat_rows": Case("concatenation", ConcatenationParams(2), f32((2, 20, 3, 5), (2, 20, 4, 5))),
    "pad": Case("pad", PadParams((0, 1, 2, 1), (0, 2, 0, 3), "constant", 1.5), f32(X4)),
    "pad_crop": Case("pad", PadParams((0, 0, -2, 1), (0, 0, 1, -3)), f32(X4)),
    "pad_reflect": Case("pad", PadParams((0, 0, 3, 2), (0, 0, 2, 5), "reflect"), f32(X4)),
    "pad_edge": Case("pad", PadParams((0, 0, 3, 2), (0, 0, 2, 5), "edge"), f32(X4)),
    "pad_wrap": Case("pad", PadParams((0, 0, 3, 2), (0, 0, 2, 5), "wrap"), f32(X4)),
    "gather_rows": Case(
        "gather", GatherParams(1), (((3, 50, 6), F32), ((2, 4), I64)), low=-55, high=55
    ),
    "gather_channels": Case("gather", GatherParams(1), ((X4, F32), ((5,), I32)), low=0, high=19),
    "gather_elements": Case(
        "gather_elements",
        GatherElementsParams(2),
        (((3, 6, 9), F32), ((2, 6, 40), I64)),
        4,
        (),
        -11,
        11,
    ),
    "gather_elements_image": Case(
        "gather_elements", GatherElementsParams(1), ((X4, F32), (X4, I32)), 4, (), -21, 20
    ),
    "gather_nd": Case(
        "gather_nd", GatherNdParams(1), (((3, 6, 5, 4), I32), ((3, 7, 2), I64)), 4, (), -6, 6
    ),
    "gather_nd_image": Case(
        "gather_nd", GatherNdParams(), ((X4, F32), ((30, 2, 3), I64)), 4, (), -3, 8
    ),
    "scatter": Case(
        "scatter_elements",
        ScatterElementsParams(1),
        (((5, 40, 3), F32), ((4, 9, 3), I64), ((4, 9, 3), F32)),
        4,
        (),
        -42,
        41,
    ),
    "scatter_add_line": Case(
        "scatter_elements",
        ScatterElementsParams(0, "add"),
        (((300,), I32), ((90,), I64), ((90,), I32)),
        90,
        (),
        0,
        60,
    ),
    "scatter_max_int": Case(
        "scatter_elements",
        ScatterElementsParams(0, "max"),
        (((7, 6), I32), ((9, 5), I64), ((9, 5), I32)),
        4,
        (),
        -7,
        7,
    ),
    "scatter_nd": Case(
        "scatter_nd",
        ScatterNdParams(),
        (((6, 5, 90), F32), ((4, 3, 2), I64), ((4, 3, 90), F32)),
        4,
        (),
        -6,
        6,
    ),
    "scatter_nd_points": Case(
        "scatter_nd",
        ScatterNdParams("mul"),
        ((X4, F32), ((50, 4), I64), ((50,), F32)),
        16,
        (),
        -2,
        3,
    ),
    "scatter_nd_min": Case(
        "scatter_nd",
        ScatterNdParams("min"),
        (((40, 3), I32), ((25, 1), I32), ((25, 3), I32)),
        4,
        (),
        0,
        40,
    ),
    "running_sum": Case("cumulative", CumulativeParams("sum", 1), f32(X4), 24),
    "running_sum_back": Case(
        "cumulative", CumulativeParams("sum", 2, True, True), (((3, 4, 5), I32),)
    ),
    "running_product": Case("cumulative", CumulativeParams("product", 0, True), f32((4, 6)), 6),
    "reverse_sequence": Case(
        "reverse_sequence",
        ReverseSequenceParams(1, 0),
        (((9, 6, 4), F32), ((6,), I64)),
        4,
        (),
        -2,
        12,
    ),
    "non_zero": Case("non_zero", NonZeroParams(30), (((5, 4, 3), I32),), 4, (), -1, 2),
    "non_zero_cut": Case("non_zero", NonZeroParams(5), (((40,), BOOL),)),
    "cache_update": Case(
        "cache_update",
        CacheUpdateParams(2),
        (((2, 3, 9, 4), F32), ((2, 3, 3, 4), F32), ((2,), I64)),
        4,
        (),
        0,
        9,
    ),
    "cache_update_circular": Case(
        "cache_update",
        CacheUpdateParams(1, True),
        (((3, 5, 4), F32), ((3, 2, 4), F32), ((3,), I64)),
        4,
        (),
        0,
        5,
    ),
    "bit_cast": Case("bit_cast", BitCastParams(F32, I32), f32(X4)),
    "bit_cast_to_float": Case(
        "bit_cast", BitCastParams(I32, F32), (((40,), I32),), 4, (), 2**29, 2**30
    ),
    "shift_left": Case(
        "elementwise", ElementwiseParams("shift_left"), (((50,), I64), ((50,), I64)), 4, (), -3, 40
    ),
    "shift_right": Case(
        "elementwise",
        ElementwiseParams("shift_right"),
        (((50,), I64), ((50,), I64)),
        4,
        (),
        -70,
        70,
    ),
    "bit_xor": Case("elementwise", ElementwiseParams("bit_xor"), (((50,), U8), ((50,), U8)), low=0),
    **{
        f"grid_{mode}_{padding}": Case(
            "grid_sample",
            GridSampleParams(mode, padding, mode == "linear"),  # type: ignore[arg-type]
            f32((2, 5, 7, 9), (2, 6, 8, 2)),
            64,
        )
        for mode, padding in (
            ("nearest", "zeros"),
            ("linear", "zeros"),
            ("linear", "border"),
            ("cubic", "reflection"),
        )
    },
    "grid_volume": Case(
        "grid_sample",
        GridSampleParams("linear", "zeros", False),
        f32((2, 3, 4, 5, 6), (2, 3, 4, 5, 3)),
        64,
    ),
    "grid_line": Case(
        "grid_sample", GridSampleParams("linear", "reflection", True), f32((2, 3, 1), (2, 4, 1)), 64
    ),
    "roi_align": Case(
        "roi_align",
        RoiAlignParams("average", (3, 4), 2, 2.0, True),
        (((2, 5, 9, 8), F32), ((6, 4), F32), ((6,), I64)),
        64,
        (),
        0,
        2,
    ),
    "roi_align_adaptive": Case(
        "roi_align",
        RoiAlignParams("average", (3, 2), 0, 0.03, False),
        (((2, 5, 9, 8), F32), ((6, 4), F32), ((6,), I32)),
        64,
        (),
        0,
        3,
    ),
    "roi_align_max": Case(
        "roi_align",
        RoiAlignParams("max", (2, 2), 3, 1.0, False),
        (((2, 5, 9, 8), F32), ((6, 4), F32), ((6,), I64)),
        64,
        (),
        -1,
        2,
    ),
    "roi_pool": Case(
        "roi_pool",
        RoiPoolParams((3, 2), 4.0),
        (((2, 5, 9, 8), F32), ((6, 5), F32)),
        is_positive=True,
    ),
    "deformable": Case(
        "deformable_convolution",
        DeformableConvolutionParams((2, 1), (1, 0), (1, 1), (1, 2), 2, 3, True, True),
        f32((2, 6, 7, 9), (4, 3, 3, 2), (2, 36, 4, 8), (2, 18, 4, 8), (4,)),
        80,
        (1, 4),
    ),
    "pool_indices": Case(
        "max_pool_indices", MaxPoolIndicesParams(pool_params("max", False, (4, 5))), f32(X4)
    ),
    "pool_indices_columns": Case(
        "max_pool_indices", MaxPoolIndicesParams(pool_params("max", False, (4, 5)), True), f32(X4)
    ),
    "boxes": Case("box_selection", BoxSelectionParams(9, 0.2, 0.1), f32((2, 30, 4), (2, 3, 30)), 4),
    "boxes_centred": Case(
        "box_selection",
        BoxSelectionParams(40, 0.1, None, True),
        f32((1, 30, 4), (1, 2, 30)),
        4,
        is_positive=True,
    ),
    "nearest": resize_case(X4, (2, 19, 14, 18), "nearest", "asymmetric"),
    "linear": resize_case(X4, (2, 19, 13, 20), "linear", "half_pixel"),
    "linear_down": resize_case(X4, (2, 19, 4, 5), "linear", "align_corners"),
    "cubic": resize_case(X4, (2, 19, 13, 20), "cubic", "half_pixel"),
    "linear_1d": resize_case((4, 30), (4, 70), "linear", "pytorch_half_pixel"),
    "arg_max": Case("arg_reduce", ArgReduceParams("max", 1), f32(X4)),
    "arg_min_last": Case("arg_reduce", ArgReduceParams("min", 3, False, True), f32(X4)),
    "arg_max_ties": Case(
        "arg_reduce", ArgReduceParams("max", 1, True, True), (((9, 40), I32),), low=0, high=4
    ),
    "top_k": Case("top_k", TopKParams(5, 1), f32((3, 40))),
    "top_k_small": Case("top_k", TopKParams(4, 0, False), (((20, 6), I32),), low=0, high=6),
    "softmax": Case("softmax", SoftmaxParams(1), f32((3, 1000)), 1000),
    "softmax_short": Case("softmax", SoftmaxParams(1), f32((300, 5)), 8),
    "softmax_channels": Case("softmax", SoftmaxParams(1), f32(X4), 24),
    "log_softmax": Case("softmax", SoftmaxParams(2, True), f32(X4), 24),
    "lrn": Case("lrn", LrnParams(5, 1e-1, 0.75, 1.0), f32(X4), 12),
    "lrn_within": Case("lrn", LrnParams(3, 0.5, 0.6, 2.0, "within"), f32(X4), 24),
    "normalize": Case("normalize", NormalizeParams(False, 1e-6), f32(X4, (1, 19, 1, 1)), 24, (1,)),
    "normalize_all": Case("normalize", NormalizeParams(True, 1e-6), f32(X4, (1, 1, 1, 1)), 1200),
    "conv": Case(
        "convolution",
        ConvolutionParams((2, 1), (1, 2), (0, 1), (1, 2)),
        f32(X4, (21, 19, 3, 3), (21,)),
        180,
        (1, 2),
    ),
    "conv_groups": Case(
        "convolution",
        ConvolutionParams((1, 1), (1, 1), (1, 1), (1, 1), 3),
        f32((1, 9, 5, 6), (6, 3, 3, 3)),
        30,
        (1,),
    ),
    "conv_1d": Case(
        "convolution", ConvolutionParams((1,), (1,), (1,), (1,)), f32((2, 5, 40), (4, 5, 3)), 16
    ),
    "deconv": Case(
        "deconvolution",
        DeconvolutionParams((2, 3), (1, 0), (0, 1), (1, 1), (1, 0)),
        f32((2, 6, 4, 5), (6, 10, 3, 4), (10,)),
        80,
        (1, 2),
    ),
    "deconv_groups": Case(
        "deconvolution",
        DeconvolutionParams((2, 2), (1, 1), (1, 1), (1, 1), (0, 0), 2),
        f32((1, 6, 4, 5), (6, 2, 4, 4)),
        60,
        (1,),
    ),
    "max_pool": pool_case("max", False, X4, (4, 5)),
    "average_pool": pool_case("average", False, X4, (4, 5)),
    "average_pool_padded": pool_case("average", True, X4, (4, 5)),
    "max_pool_1d": pool_case("max", False, (2, 3, 17), (9,)),
    "fc": Case("fully_connected", FullyConnectedParams(), f32(X4, (13, 1197), (13,)), 1200, (1, 2)),
    "matmul": Case("matrix_multiply", MatrixMultiplyParams(), f32((2, 3, 5, 70), (3, 70, 90)), 70),
    "matmul_bt": Case(
        "matrix_multiply", MatrixMultiplyParams(False, True), f32((5, 70), (4, 9, 70)), 70
    ),
    "matmul_at": Case(
        "matrix_multiply", MatrixMultiplyParams(True, False), f32((70, 5), (70, 9)), 70
    ),
    "matmul_i64": Case(
        "matrix_multiply",
        MatrixMultiplyParams(),
        (((2, 5, 17), I64), ((17, 9), I64)),
        low=-(2**24),
        high=2**24,
    ),
    "matmul_bt_i32": Case(
        "matrix_multiply",
        MatrixMultiplyParams(False, True),
        (((5, 33), I32), ((9, 33), I32)),
        low=-4000,
        high=4000,
    ),
    "fc_i32": Case(
        "fully_connected",
        FullyConnectedParams(),
        (((3, 4, 5), I32), ((7, 20), I32), ((7,), I32)),
        low=-4000,
        high=4000,
    ),
    "conv_epilogue": Case(
        "convolution",
        ConvolutionParams((1, 1), (0, 0), (0, 0), (1, 1)),
        f32(X4, (21, 19, 1, 1), (1, 21, 1, 1), (2, 21, 7, 9)),
        30,
        (1, 2),
        epilogue=Epilogue(
            relu(Binary("add", Binary("add", Input(0), Input(1)), Input(2))), num_operands=2
        ),
    ),
}
for _op in ("sum", "mean", "prod", "max", "min", "l1", "l2", "sum_square", "log_sum_exp"):
    CASES[f"reduce_{_op}"] = Case("reduce", ReduceParams(_op, (2, 3)), f32(X4), 63)  # type: ignore[arg-type]
CASES["reduce_log_sum"] = Case(
    "reduce", ReduceParams("log_sum", (1,), False), f32(X4), 20, is_positive=True
)
CASES["reduce_first"] = Case("reduce", ReduceParams("sum", (0,), False), f32(X4), 2)
CASES["reduce_all"] = Case("reduce", ReduceParams("mean", (0, 1, 2, 3), False), f32(X4), 2400)
CASES["reduce_channels"] = Case("reduce", ReduceParams("mean", (1,)), f32(X4), 20)
CASES["reduce_int"] = Case("reduce", ReduceParams("sum", (1,)), (((6, 90), I64),))
CASES["reduce_int_max"] = Case("reduce", ReduceParams("max", (0,)), (((6, 90), I32),))


def formats(case: Case, block: TensorFormat) -> Iterator[tuple[TensorFormat, ...]]:
    """LINEAR everywhere, blocked everywhere, and two mixes (constants stay LINEAR)."""
    types = [TensorType(*i) for i in case.inputs]
    own = types[: len(types) - (case.epilogue.num_operands if case.epilogue else 0)]
    outputs = definition(case.kind).infer(case.params, own)
    choices = []
    for number, item in enumerate([*types, *outputs]):
        is_image = item.rank == 4 and item.dtype is F32 and number not in case.constant
        choices.append((LINEAR, block) if is_image else (LINEAR,))
    every = list(itertools.product(*choices))
    count = len(every)
    for number in sorted({0, count // 3, 2 * count // 3, count - 1}):
        yield every[number]


def build(case: Case, chosen: Sequence[TensorFormat], gap: int = 0) -> Problem:
    types = [TensorType(*i) for i in case.inputs]
    own = types[: len(types) - (case.epilogue.num_operands if case.epilogue else 0)]
    outputs = definition(case.kind).infer(case.params, own)
    layouts = [
        layout(t.shape, f, t.dtype, 0 if number in case.constant else gap if t.rank else 0)
        for number, (t, f) in enumerate(zip([*types, *outputs], chosen, strict=True))
    ]
    count = len(types)
    return problem(
        case.kind,
        case.params,
        layouts[:count],
        layouts[count:],
        constant=case.constant,
        epilogue=case.epilogue,
    )


def values_of(case: Case) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(7)
    found = []
    for shape, dtype in case.inputs:
        numpy_type = NUMPY_TYPES[dtype]
        if dtype is BOOL:
            found.append(rng.integers(0, 2, shape).astype(np.uint8))
        elif dtype.is_float and case.low == 0:
            found.append(rng.uniform(0, 250, shape).astype(numpy_type))
        elif dtype.is_float:
            normal = rng.normal(0, 1, shape)
            found.append((np.abs(normal) + 0.1 if case.is_positive else normal).astype(numpy_type))
        else:
            found.append(rng.integers(case.low, case.high, shape).astype(numpy_type))
    return found


def reference(case: Case, values: Sequence[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    wide = [
        v.astype(bool) if t is BOOL else v.astype(np.float64 if t.is_float else np.int64)
        for v, (_, t) in zip(values, case.inputs, strict=True)
    ]
    operands = case.epilogue.num_operands if case.epilogue else 0
    outputs = definition(case.kind).reference(case.params, wide[: len(wide) - operands])
    if case.epilogue is not None:
        from builder_host.expressions import evaluate

        outputs[0] = evaluate(case.epilogue.expr, [outputs[0], *wide[len(wide) - operands :]])
    return outputs
