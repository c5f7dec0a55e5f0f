"""Fully connected layers and products with a constant INT8 matrix: exact int32 sums.

Few rows are bound by the stream of weights: dot products of four bytes, any GPU. More rows go
through the tensor cores as the 1x1 convolution of one image row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder_host.codegen.template import fill
from builder_host.kernels.cuda_conv_igemm.family import tile_of_tactic
from builder_host.kernels.cuda_conv_int8.family import (
    TEMPLATE_HASH,
    packed_of,
    program_of,
    tactics_of,
)
from builder_host.kernels.cuda_conv_int8.halves import tile_us
from builder_host.kernels.cuda_conv_simt import geometry
from builder_host.kernels.cuda_conv_simt.geometry import Convolution, c_type
from builder_host.kernels.cuda_gemm.family import (
    columns_per_block,
    epilogue_parameters,
    plain_tactics,
    stored_columns,
)
from builder_host.kernels.cuda_gemm.product import (
    Product,
    packed_operands,
    packed_weights,
    product_of,
)
from builder_host.kernels.cuda_loop_nest.cost import LAUNCH_US, bytes_us, operations_us
from builder_host.kernels.family import (
    Array,
    GridLaunch,
    Problem,
    Program,
    Tactic,
    symbol_for,
    template_hash,
)
from builder_host.targets.cuda import CudaTarget
from planformat.datatypes import DataType

_HERE = Path(__file__).parent
_TEMPLATE = (_HERE / "kernel.cu").read_text()
_MAX_ROW_TILE = 8
_MIN_MMA_ROWS = 8
_MAX_SUMS_TAKEN_APART = 8
_MAX_ELEMS = 2**31 - 1  # the convolution kernel indexes with 32 bits


class CudaGemmInt8:
    """Family `cuda_gemm_int8`.

    Tactic parameters: those of `cuda_gemm`'s plain sums, or of `cuda_conv_int8`.
    """

    name = "cuda_gemm_int8"
    device_kind = "cuda"
    template_hash = template_hash(
        _TEMPLATE,
        TEMPLATE_HASH,
        (_HERE / "family.py").read_text(),
        *((_HERE.parent / "cuda_gemm" / name).read_text() for name in ("family.py", "product.py")),
    )

    def applies(self, problem: Problem, target: Any) -> bool:
        """8-bit x and constant INT8 weights, rows that are dense."""
        return isinstance(target, CudaTarget) and product_of(problem, integers=True) is not None

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """Launch, and the larger of the weights once per row tile and of the arithmetic."""
        product = _required(problem)
        plain = _plain_us(product, target)
        if not _has_mma(product, target):
            return plain
        conv = _as_convolution(product)
        tactics = tactics_of(self.name, conv, target)
        return min([plain, *(_mma_us(tactic, conv, target) for tactic in tactics[:1])])

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Tensor cores for some rows, dot products for few; those that fill the chip first."""
        product = _required(problem)
        plain = _plain_tactics(product, target)
        if not _has_mma(product, target):
            return plain[:8]
        conv = _as_convolution(product)
        mma = tactics_of(self.name, conv, target)
        if not mma:
            return plain[:8]
        if _plain_us(product, target) < _mma_us(mma[0], conv, target):
            return [*plain[:4], *mma[:4]]
        return [*mma[:6], *plain[:2]]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One kernel, or two where the tensor cores' sums meet in a workspace."""
        product = _required(problem)
        if "pixels" in tactic.values:
            return program_of("gemm_int8", _as_convolution(product), problem, tactic, target)
        values = {name: int(value) for name, value in tactic.values.items()}
        shape = "_".join(f"{name[0]}{value}" for name, value in sorted(values.items()))
        symbol = symbol_for(
            f"gemm_dp4a_{shape}_sm{target.sm}",
            *(self.template_hash, problem.text(), tactic.text),
        )
        parameters: dict[str, int | str] = {
            "KERNEL": symbol,
            "X_TYPE": c_type(product.dtype),
            "X_IS_SIGNED": int(product.dtype is DataType.INT8),
            "Y_TYPE": c_type(problem.outputs[0].dtype),
            "ROWS": product.rows,
            "COLUMNS": product.columns,
            "DEPTH": product.depth,
            "X_STRIDE": product.x_stride,
            "Y_STRIDE": product.y_stride,
            "ROW_TILE": values["row_tile"],
            "COLUMNS_PER_WARP": values["columns"],
            "SPLIT": values["split"],
            "NUM_WARPS": values["warps"],
            "AHEAD": values["ahead"],
            **epilogue_parameters(product),
        }
        blocks = stored_columns(product, tactic) // columns_per_block(tactic)
        launch = GridLaunch(
            symbol,
            (blocks, -(-product.rows // values["row_tile"]), 1),
            (32 * values["warps"], 1, 1),
            is_dependent=target.has_dependent_launch,
        )
        return Program(fill(_TEMPLATE, parameters), (launch,))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """Weights in rows of whole chunks with zero columns behind, or as fragments."""
        del target
        product = _required(problem)
        weights = constants[1]
        if weights is None:
            raise ValueError(f"{self.name}: the weights of {problem.text()} are not given")
        if "pixels" in tactic.values:
            packed = packed_weights(product, weights, product.columns)[:, : product.depth]
            grouped = packed.reshape(1, product.columns, 1, product.depth)
            return packed_of(_as_convolution(product), tactic, grouped, constants)
        columns = stored_columns(product, tactic)
        packed = packed_weights(product, weights, columns)
        return [None, packed, *packed_operands(product, list(constants[2:]), columns)]


def _required(problem: Problem) -> Product:
    product = product_of(problem, integers=True)
    if product is None:
        raise ValueError(f"cuda_gemm_int8 does not apply to {problem.text()}; ask applies() first")
    return product


def _has_mma(product: Product, target: CudaTarget) -> bool:
    if not target.has_mma_s8 or product.rows < _MIN_MMA_ROWS:
        return False
    return product.rows * max(product.x_stride, product.y_stride) <= _MAX_ELEMS


def _plain_tactics(product: Product, target: CudaTarget) -> list[Tactic]:
    found = plain_tactics(CudaGemmInt8.name, product, target)
    if target.has_dp4a:
        return found
    # Bytes that are taken apart need registers of their own.
    sums = [int(t.values["columns"]) * int(t.values["row_tile"]) for t in found]
    return [t for t, count in zip(found, sums, strict=True) if count <= _MAX_SUMS_TAKEN_APART]


def _plain_us(product: Product, target: CudaTarget) -> float:
    tiles = -(-product.rows // _MAX_ROW_TILE)
    weights = product.columns * product.padded_depth
    dots = product.rows * product.columns * product.depth / 4
    dots *= 2 if target.has_dp4a else 16  # half the rate of multiply-adds; bytes taken apart
    compute = operations_us(dots, target, num_threads=1e9)
    return LAUNCH_US + max(bytes_us(weights * tiles, target), compute)


def _mma_us(tactic: Tactic, conv: Convolution, target: CudaTarget) -> float:
    return tile_us(tile_of_tactic(tactic), conv, target)


def _as_convolution(product: Product) -> Convolution:
    """The product as a 1x1 convolution: rows are the pixels of one image row."""
    problem = product.problem
    x, weights, y = problem.inputs[0], problem.inputs[1], problem.outputs[0]
    elems = 16 // y.dtype.size_bytes
    return Convolution(
        problem=problem,
        is_transposed=False,
        batch=1,
        channels=product.depth,
        filters=product.columns,
        groups=1,
        in_h=1,
        in_w=product.rows,
        out_h=1,
        out_w=product.rows,
        kernel_h=1,
        kernel_w=1,
        stride_h=1,
        stride_w=1,
        pad_top=0,
        pad_left=0,
        dilation_h=1,
        dilation_w=1,
        x_dtype=x.dtype,
        w_dtype=weights.dtype,
        y_dtype=y.dtype,
        x_strides=(0, 1, 0, product.x_stride),
        y_strides=(0, 1, 0, product.y_stride),
        x_vector=math.gcd(16, product.depth, product.x_stride),
        y_vector=math.gcd(elems, product.columns, product.y_stride),
        x_is_view=not x.is_dense,
        y_is_view=not y.is_dense,
        operands=tuple(
            geometry.Operand(
                is_channel=operand.is_channel,
                dtype=operand.dtype,
                strides=(0, 1, 0, operand.row_stride),
                vector=math.gcd(
                    16 // operand.dtype.size_bytes, product.columns, operand.row_stride
                ),
                is_view=not layout.is_dense,
            )
            for operand, layout in zip(product.operands, problem.inputs[2:], strict=True)
        ),
    )


FAMILY = CudaGemmInt8()
