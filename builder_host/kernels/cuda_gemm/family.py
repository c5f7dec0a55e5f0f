"""Products with constant weights on CUDA: few rows, bound by the stream of weights.

Two kernels: plain sums (any GPU, float16 and float32), and tensor cores for two rows of float16 or
more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder_host.codegen import cuda_expression
from builder_host.codegen.cuda_expression import print_cuda
from builder_host.codegen.template import fill
from builder_host.kernels.cuda_conv_simt.geometry import c_type
from builder_host.kernels.cuda_gemm.product import (
    Product,
    fragments,
    packed_operands,
    packed_weights,
    product_of,
)
from builder_host.kernels.cuda_loop_nest.cost import LAUNCH_US, bytes_us, operations_us
from builder_host.kernels.family import (
    Array,
    GridLaunch,
    KernelFamily,
    Problem,
    Program,
    Tactic,
    symbol_for,
    template_hash,
)
from builder_host.network.rules import EIGHT_BITS
from builder_host.targets.cuda import CudaTarget
from planformat.datatypes import DataType

_HERE = Path(__file__).parent
_TEMPLATE = (_HERE / "kernel.cu").read_text()
_MMA_TEMPLATE = (_HERE / "kernel_mma.cu").read_text()
_HEADERS = Path(cuda_expression.__file__).parent / "cuda_include"
_MAX_ROW_TILE = 8
_MAX_MMA_ROW_TILES = 8
_WARPS_PER_SM = 16  # enough 16-byte loads in flight for any memory known


class CudaGemmFamily:
    """Kernel family `cuda_gemm`: fully connected layers, and matrices times constant ones."""

    name = "cuda_gemm"
    device_kind = "cuda"
    template_hash = template_hash(
        _TEMPLATE,
        _MMA_TEMPLATE,
        Path(__file__).read_text(),
        (_HERE / "product.py").read_text(),
        *(path.read_text() for path in sorted(_HEADERS.glob("*.cuh"))),
    )

    def applies(self, problem: Problem, target: Any) -> bool:
        """Float16 or float32 x, constant weights of that type, rows that are dense."""
        return isinstance(target, CudaTarget) and product_of(problem) is not None

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """Launch, and the larger of the weights once per row tile and of the arithmetic."""
        product = _required(problem)
        is_mma = _has_mma(product, target)
        tiles = -(-product.rows // (8 * _MAX_MMA_ROW_TILES if is_mma else _MAX_ROW_TILE))
        weights = product.columns * product.padded_depth * product.dtype.size_bytes
        products = product.rows * product.columns * product.depth / (4 if is_mma else 1)
        compute = operations_us(products, target, num_threads=1e9)
        return LAUNCH_US + max(bytes_us(weights * tiles, target), compute)

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Tensor cores for some rows, plain sums for few; those that fill the chip first."""
        product = _required(problem)
        plain = plain_tactics(self.name, product, target)
        if product.rows == 1 or not _has_mma(product, target):
            return plain[:8]
        mma = self._mma_tactics(product, target)
        return [*mma[:6], *plain[:2]] if product.rows >= 4 else [*plain[:4], *mma[:4]]

    def _mma_tactics(self, product: Product, target: CudaTarget) -> list[Tactic]:
        """Tiles of 8 rows per warp, and warps per tile of 16 columns."""
        blocks = -(-product.depth // 32)
        all_tiles = -(-product.rows // 8)
        wanted = target.num_sms * _WARPS_PER_SM
        found = []
        for row_tiles in sorted({min(all_tiles, _MAX_MMA_ROW_TILES), min(all_tiles, 4)}):
            for split in (2, 4, 8, 16):
                if split * row_tiles > 64 or (split > 2 and split > blocks):
                    continue
                warps = -(-product.columns // 16) * split * -(-all_tiles // row_tiles)
                found.append((abs(math.log2(warps / wanted)), -row_tiles, split))
        found.sort()
        return [
            Tactic(
                self.name,
                (
                    ("ahead", max(1, min(4, -(-blocks // split)))),
                    ("row_tiles", -row_tiles),
                    ("split", split),
                ),
            )
            for _, row_tiles, split in found
        ]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One kernel; a block is some columns and one tile of rows."""
        product = _required(problem)
        values = {name: int(value) for name, value in tactic.values.items()}
        is_mma = "row_tiles" in values
        shape = "_".join(f"{name[0]}{value}" for name, value in sorted(values.items()))
        stem = f"cuda_gemm_{'mma' if is_mma else 'sum'}_{product.dtype.text}_{shape}"
        symbol = symbol_for(stem, problem.text(), tactic.text, self.template_hash, target.sm)
        common: dict[str, int | str] = {
            "KERNEL": symbol,
            "Y_TYPE": c_type(problem.outputs[0].dtype),
            "ROWS": product.rows,
            "COLUMNS": product.columns,
            "DEPTH": product.depth,
            "X_STRIDE": product.x_stride,
            "Y_STRIDE": product.y_stride,
            "SPLIT": values["split"],
            "AHEAD": values["ahead"],
            **epilogue_parameters(product),
        }
        columns = stored_columns(product, tactic)
        if is_mma:
            source = fill(_MMA_TEMPLATE, {**common, "ROW_TILES": values["row_tiles"]})
            grid = (columns // 16, -(-product.rows // (8 * values["row_tiles"])), 1)
            threads = 32 * values["split"]
        else:
            own: dict[str, int | str] = {
                "X_TYPE": c_type(product.dtype),
                "ROW_TILE": values["row_tile"],
                "COLUMNS_PER_WARP": values["columns"],
                "NUM_WARPS": values["warps"],
            }
            source = fill(_TEMPLATE, {**common, **own})
            grid = (
                columns // columns_per_block(tactic),
                -(-product.rows // values["row_tile"]),
                1,
            )
            threads = 32 * values["warps"]
        launch = GridLaunch(symbol, grid, (threads, 1, 1), is_dependent=target.has_dependent_launch)
        return Program(source, (launch,))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """Weights in order of use, zero columns to fill the last block."""
        del target
        product = _required(problem)
        columns = stored_columns(product, tactic)
        weights = constants[1]
        if weights is None:
            raise ValueError(f"cuda_gemm needs the weights of {problem.text()}")
        packed = packed_weights(product, weights, columns)
        if "row_tiles" in tactic.values:
            packed = fragments(packed)
        return [None, packed, *packed_operands(product, list(constants[2:]), columns)]


def plain_tactics(name: str, product: Product, target: CudaTarget) -> list[Tactic]:
    """Columns per warp, and warps per column, of kernels with plain sums."""
    chunks = product.padded_depth * product.dtype.size_bytes // 16
    row_tile = min(product.rows, _MAX_ROW_TILE)
    row_tiles = -(-product.rows // row_tile)
    wanted = target.num_sms * _WARPS_PER_SM
    found = []
    for columns in (1, 2, 4):
        if columns * row_tile > 32 or (columns > 1 and columns > product.columns):
            continue
        for split in (1, 2, 4, 8):
            if split > 1 and chunks < 32 * split:
                continue
            warps = -(-product.columns // columns) * split * row_tiles
            # More columns per warp read x less often (measured: 4 first where rows are many).
            distance = abs(math.log2(warps / wanted)) - 0.5 * math.log2(columns)
            found.append((distance, columns, split))
    found.sort()
    return [
        Tactic(
            name,
            (
                ("ahead", max(1, min(4, -(-chunks // (32 * split))))),
                ("columns", columns),
                ("row_tile", row_tile),
                ("split", split),
                ("warps", max(4, split)),
            ),
        )
        for _, columns, split in found
    ]


def _has_mma(product: Product, target: CudaTarget) -> bool:
    return product.dtype is DataType.FLOAT16 and target.has_mma_f16


def epilogue_parameters(product: Product) -> dict[str, int | str]:
    """OPERAND_PARAMETERS, OPERAND_LOADS and EPILOGUE of a kernel that finishes one element."""
    parameters, loads, names = "", [], ["x0"]
    for operand in product.operands:
        parameters += f", const {c_type(operand.dtype)} *{operand.name}"
        place = "k" if operand.is_channel else f"ep_i64(m) * {operand.row_stride} + k"
        name = f"x{len(names)}"
        loads.append(f"const float {name} = ep_to_float({operand.name}[{place}]);")
        names.append(name)
    epilogue = product.problem.epilogue
    text = "x0"
    if epilogue:
        text = print_cuda(epilogue.expr, names, is_exact=product.dtype in EIGHT_BITS)
    return {
        "OPERAND_PARAMETERS": parameters,
        "OPERAND_LOADS": " ".join(loads),
        "EPILOGUE": text,
    }


def _required(problem: Problem) -> Product:
    product = product_of(problem)
    if product is None:
        raise ValueError(f"cuda_gemm does not apply to {problem.text()}; ask applies() first")
    return product


def columns_per_block(tactic: Tactic) -> int:
    """Columns of the result that one block computes."""
    values = tactic.values
    if "row_tiles" in values:
        return 16
    return int(values["warps"]) // int(values["split"]) * int(values["columns"])


def stored_columns(product: Product, tactic: Tactic) -> int:
    """Columns of the packed weights: those of whole blocks."""
    width = columns_per_block(tactic)
    return -(-product.columns // width) * width


FAMILY: KernelFamily = CudaGemmFamily()
