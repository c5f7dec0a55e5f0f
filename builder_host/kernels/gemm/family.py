"""Fully connected layers and batched matrix products (CPU, float32).

One row of output is bound by memory: the weights are packed in order of use and streamed once.
More rows share that stream in a register tile; constant right sides are packed at build time,
others block by block into scratch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from builder_host.codegen.template import fill
from builder_host.kernels.family import (
    Array,
    Launch,
    Problem,
    Program,
    Tactic,
    symbol_for,
    template_hash,
)
from builder_host.kernels.gemm.product import (
    Product,
    batch_offset,
    broadcast_batch,
    depth_order,
    product_of,
)
from builder_host.kernels.store_epilogue import (
    epilogue_parameters,
    pack_layout,
    pack_operands,
    with_bias_as_operand,
)
from builder_host.kernels.traffic import traffic_us
from builder_host.layouts import Layout
from builder_host.targets.target import CpuTarget

_HERE = Path(__file__).parent
_TEMPLATE = (_HERE / "kernel.c").read_text()
_KINDS = ("fully_connected", "matrix_multiply")

_FEW_ROWS = 16
# Row tile and column vectors: accumulators, the vectors of B and one broadcast fit in registers.
_TILES = {32: ((6, 4), (9, 3), (14, 2)), 16: ((6, 2), (3, 3))}


class GemmFamily:
    """Kernel family `gemm` (CPU)."""

    name = "gemm"
    device_kind = "cpu"
    template_hash = template_hash(
        _TEMPLATE, Path(__file__).read_text(), (_HERE / "product.py").read_text()
    )

    def applies(self, problem: Problem, target: Any) -> bool:
        """Float32; linear sides, or a blocked input of a fully connected layer; linear output."""
        if problem.kind not in _KINDS or not isinstance(target, CpuTarget):
            return False
        return _product(problem, target) is not None

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """The larger of arithmetic at 85 % of peak and all sides once through memory."""
        product = _required(problem, target)
        flops = 2.0 * product.batch * product.rows * product.columns * product.depth
        flops_us = flops / (0.85 * target.fma_gflops_per_core * 1e3)
        if not problem.is_constant[1]:
            flops_us *= 1.1
        return float(max(flops_us, traffic_us(problem, target)) + 0.1)

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """One row: column vectors by interleaved sums; more rows: register tiles."""
        product = _required(problem, target)
        return [
            Tactic(
                self.name,
                (
                    ("chains", chains),
                    ("depth_block", _depth_block(product, rows, vectors, target)),
                    ("prefetch", prefetch),
                    ("row_tile", rows),
                    ("vectors", vectors),
                ),
            )
            for rows, vectors, chains, prefetch in _tiles(problem, product, target)
        ]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch; a unit is a batch item, a group of rows and a group of columns."""
        product = _required(problem, target)
        values = {name: int(value) for name, value in tactic.values.items()}
        row_tile, vectors, depth_block = (
            values["row_tile"], values["vectors"], values["depth_block"]
        )  # fmt: skip
        lanes = target.vector_elems
        num_vectors = -(-product.columns // lanes)
        groups = -(-num_vectors // vectors)
        rows_per_unit = _rows_per_unit(product, row_tile, groups, problem.num_workers)
        mode = _b_mode(problem, product, row_tile)
        stem = f"gemm_f32_{row_tile}x{vectors}_{target.isa}"
        symbol = symbol_for(stem, self.template_hash, problem.text(), tactic.text, target.isa)
        x = problem.inputs[0]
        blocked = x.strides[1:] if product.gather else (0, 0, 0)
        shape = x.shape[1:] if product.gather else (1, 1, 1)
        canonical = with_bias_as_operand(problem, 2, len(problem.outputs[0].shape) - 1)
        parameters: dict[str, int | str] = {
            "KERNEL": symbol,
            "ROWS": product.rows,
            "COLUMNS": product.columns,
            "DEPTH": product.depth,
            "VECTORS": vectors,
            "VECTORS_LAST": num_vectors - (groups - 1) * vectors,
            "ROW_TILE": row_tile,
            "ROWS_PER_UNIT": rows_per_unit,
            "CHAINS": values["chains"],
            "DEPTH_BLOCK": depth_block,
            "PREFETCH_ELEMS": values["prefetch"],
            "B_MODE": mode,
            "A_IS_BLOCKED": int(product.gather),
            "A_CHANNELS": shape[0],
            "A_HEIGHT": shape[1],
            "A_WIDTH": shape[2],
            "A_STRIDE_C": blocked[0],
            "A_STRIDE_H": blocked[1],
            "A_STRIDE_W": blocked[2],
            "A_STRIDE_ROW": product.a[0],
            "A_STRIDE_DEPTH": product.a[1],
            "B_STRIDE_DEPTH": product.b[0],
            "B_STRIDE_COLUMN": product.b[1],
            "C_STRIDE_ROW": product.c[0],
            "A_OFFSET": batch_offset(product.batch_a),
            "B_OFFSET": batch_offset(
                _packed_batch(product, lanes) if mode == "PACKED_AT_BUILD" else product.batch_b
            ),
            "C_OFFSET": batch_offset(product.batch_c),
            "OUTPUT_ARG": len(problem.inputs),
            **epilogue_parameters(
                canonical,
                len(problem.outputs[0].shape) - 1,
                channel="column",
                full_offset=lambda layout: _operand_offset(layout, product),
                count="lanes",
            ),
        }
        floats = -(-rows_per_unit * product.depth // 16) * 16 if product.gather else 0
        if mode == "PACKED_IN_SCRATCH":
            floats += depth_block * vectors * lanes
        if depth_block < product.depth:
            floats += rows_per_unit * vectors * lanes
        units = product.batch * -(-product.rows // rows_per_unit) * groups
        launch = Launch(symbol, units, scratch_bytes_per_worker=4 * floats)
        return Program(fill(_TEMPLATE, parameters), (launch,))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """B as [item][column group][depth][vectors], its last vector padded with zeros."""
        product = _required(problem, target)
        axis = len(problem.outputs[0].shape) - 1
        canonical = with_bias_as_operand(problem, 2, axis)
        a, b = constants[0], constants[1]
        width = int(tactic.values["vectors"]) * target.vector_elems
        packed_b = None
        if b is not None:
            packed_b = _packed(problem, product, b, width, target.vector_elems)
        return [
            None if a is None else pack_layout(a, problem.inputs[0]),
            packed_b,
            *pack_operands(canonical, axis, constants, target.vector_elems),
        ]


FAMILY = GemmFamily()


def _product(problem: Problem, target: CpuTarget) -> Product | None:
    axis = len(problem.outputs[0].shape) - 1
    canonical = with_bias_as_operand(problem, 2, axis)
    return product_of(canonical, target.blocked_format.channel_block)


def _required(problem: Problem, target: CpuTarget) -> Product:
    product = _product(problem, target)
    if product is None:
        raise ValueError(f"gemm does not apply to {problem.text()}; ask applies() first")
    return product


def _tiles(
    problem: Problem, product: Product, target: CpuTarget
) -> list[tuple[int, int, int, int]]:
    """Row tile, column vectors, interleaved sums and prefetch distance, best first."""
    num_vectors = -(-product.columns // target.vector_elems)
    registers = target.num_vector_registers
    found: list[tuple[int, int, int, int]] = []
    if product.rows == 1:
        enough_units = max(1, num_vectors // (2 * problem.num_workers))
        widest = max(1, min(8 if registers == 32 else 6, num_vectors, enough_units))
        for vectors in dict.fromkeys((min(4, widest), widest, min(2, widest))):
            chains = max(1, min(8, (registers // 2) // vectors))
            found += [(1, vectors, chains, 2048), (1, vectors, chains, 0)]
        return found
    for most_rows, vectors in _TILES[registers]:
        rows = _even(product.rows, most_rows)
        if rows < most_rows:  # room for more column vectors
            vectors = min((registers - 2) // (rows + 1), 8)
        if num_vectors == 1:  # columns are scarce: one vector, all registers for rows
            rows, vectors = _even(product.rows, registers - 4), 1
        vectors = min(vectors, num_vectors)
        chains = 1 if rows * vectors >= 8 else 2
        found.append((rows, vectors, chains, 0))
    if product.rows <= _FEW_ROWS:  # the widths of one row: profiles of batch 1 and 8 share weights
        for rows, vectors in ((3, 8), (6, 4)) if registers == 32 else ((2, 6), (2, 4)):
            found.append((_even(product.rows, rows), min(vectors, num_vectors), 1, 0))
    if product.rows <= _TILES[registers][0][0]:
        found += [(rows, vectors, chains, 2048) for rows, vectors, chains, _ in found]
    return list(dict.fromkeys(found))


def _even(rows: int, most: int) -> int:
    """Tile of at most `most` rows that splits `rows` evenly."""
    return -(-rows // -(-rows // most))


def _depth_block(product: Product, row_tile: int, vectors: int, target: CpuTarget) -> int:
    """Depth whose block of B stays in a quarter of L2 while the row tiles pass over it."""
    if product.rows <= row_tile:
        return product.depth
    fits = max(64, target.l2_bytes // 4 // (4 * vectors * target.vector_elems))
    return _even(product.depth, fits)


def _b_mode(problem: Problem, product: Product, row_tile: int) -> str:
    if problem.is_constant[1]:
        return "PACKED_AT_BUILD"
    if product.b[1] == 1 and product.rows <= row_tile:
        return "READ_IN_PLACE"
    return "PACKED_IN_SCRATCH"


def _rows_per_unit(product: Product, row_tile: int, groups: int, num_workers: int) -> int:
    """At most about 256 rows, a multiple of the tile, fewer where units are scarce."""
    tiles = -(-product.rows // row_tile)
    tiles_per_unit = max(1, min(tiles, 256 // row_tile))
    if product.gather:  # the copied rows stay in scratch: at most 4 MiB, but one tile
        tiles_per_unit = max(1, min(tiles_per_unit, (1 << 20) // (row_tile * product.depth)))
    while tiles_per_unit > 1:
        if product.batch * groups * -(-tiles // tiles_per_unit) >= 4 * num_workers:
            break
        tiles_per_unit = (tiles_per_unit + 1) // 2
    return tiles_per_unit * row_tile


def _packed_batch(product: Product, lanes: int) -> tuple[tuple[int, int], ...]:
    """Batch dimensions of the packed B: items that exist, one after another."""
    item = product.depth * -(-product.columns // lanes) * lanes
    shape = [extent if stride else 1 for extent, stride in product.batch_b]
    strides = [item * int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
    return broadcast_batch([extent for extent, _ in product.batch_b], shape, strides)


def _packed(problem: Problem, product: Product, b: Array, width: int, lanes: int) -> Array:
    values = b.astype(np.float32, copy=False)
    if problem.kind == "fully_connected":
        order = depth_order(problem)
        items = (values if order is None else values[:, order]).T[None]
    else:
        items = values.swapaxes(-1, -2) if problem.params.transpose_b else values
        items = items.reshape(-1, product.depth, product.columns)
    stored = -(-product.columns // lanes) * lanes
    padded = np.zeros((len(items), product.depth, stored), np.float32)
    padded[:, :, : product.columns] = items
    parts = [
        padded[item, :, start : start + width].ravel()
        for item in range(len(items))
        for start in range(0, stored, width)
    ]
    return np.concatenate(parts)


def _operand_offset(layout: Layout, product: Product) -> str:
    if len(layout.shape) == 2 or not product.batch_c:
        return f"row * INT64_C({layout.strides[-2]}) + column"
    batch = batch_offset(tuple(zip(layout.shape[:-2], layout.strides[:-2], strict=True)))
    return f"{batch} + row * INT64_C({layout.strides[-2]}) + column"
