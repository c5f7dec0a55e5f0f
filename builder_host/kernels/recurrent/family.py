"""Recurrent layers with known input projections (CPU, float32).

One launch runs all steps of a direction and some batch items on one worker; where a step is worth
sharing, every step is a launch of its own and workers split the hidden units.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from builder_host.codegen.c_expression import print_c
from builder_host.codegen.template import fill
from builder_host.kernels.family import (
    Array,
    KernelFamily,
    Launch,
    Problem,
    Program,
    Tactic,
    symbol_for,
    template_hash,
)
from builder_host.kernels.recurrent.cell import CELL_NAMES, Cell, activation_texts, cell_of
from builder_host.kernels.traffic import traffic_us
from builder_host.targets.target import CpuTarget
from planformat.datatypes import DataType

_HERE = Path(__file__).parent
_TEMPLATE = (_HERE / "kernel.c").read_text()
_DTYPES = frozenset({DataType.FLOAT32})

_STEP_LAUNCH_US = 1.0  # barrier between two launches that workers share
_MAX_SHARED_STEPS = 512  # launches of one layer
_CACHE_GBPS = 60.0  # level-2 cache to registers, one core


class RecurrentFamily:
    """Kernel family `recurrent` (CPU)."""

    name = "recurrent"
    device_kind = "cpu"
    template_hash = template_hash(
        _TEMPLATE, Path(__file__).read_text(), (_HERE / "cell.py").read_text()
    )

    def applies(self, problem: Problem, target: Any) -> bool:
        """Float32, projected; R may be computed by the network (it is packed on the way)."""
        return isinstance(target, CpuTarget) and cell_of(problem, _DTYPES) is not None

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """Multiply-adds at 60 % of peak, or R once per step from the cache that holds it."""
        cell = _required(problem)
        elems = cell.params.num_directions * cell.params.num_gates * cell.hidden * cell.hidden
        flops_us = 2.0 * elems * cell.batch / (0.6 * target.fma_gflops_per_core * 1e3)
        gbps = _CACHE_GBPS if 4 * elems <= target.l2_bytes else _CACHE_GBPS / 3
        step_us = max(flops_us, 4 * elems / (gbps * 1e3))
        return float(cell.steps * step_us + traffic_us(problem, target))

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Whole layers by register tile; with several workers also one launch per step."""
        cell = _required(problem)
        found: list[tuple[int, int, int, int]] = []
        for vectors, rows, chains in _tiles(cell, target):
            found.append((0, vectors, rows, chains))
        if _may_share(cell, problem.num_workers):
            shared = [(1, *tile[1:]) for tile in found]
            is_worth = _step_us(cell, target) > 4 * _STEP_LAUNCH_US * problem.num_workers
            found = shared + found if is_worth else found + shared
        return [
            Tactic(
                self.name,
                (("chains", chains), ("row_tile", rows), ("shares", shares), ("vectors", vectors)),
            )
            for shares, vectors, rows, chains in found
        ]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch, or a first one and one per step; R from live tensors is packed before."""
        cell = _required(problem)
        params = cell.params
        values = {name: int(value) for name, value in tactic.values.items()}
        is_whole = not values["shares"]
        rows_per_unit = _rows_per_unit(cell, values["row_tile"], problem.num_workers, is_whole)
        packs_here = not problem.is_constant[1]
        padded = _padded(cell, values["vectors"], target)
        state_bytes = 4 * padded * (rows_per_unit * 5 if is_whole else 0)
        workspace = 0 if is_whole else 4 * padded * 3 * params.num_directions * cell.batch
        if packs_here:
            workspace += 4 * padded * params.num_gates * cell.hidden * params.num_directions
        symbol = symbol_for(
            f"recurrent_{params.cell}_f32_h{cell.hidden}_{target.isa}",
            self.template_hash, problem.text(), tactic.text, target.isa,
        )  # fmt: skip
        acts = activation_texts(params, lambda e: print_c(e, ["v"], vector=True))
        first_output = len(problem.inputs)
        outputs = problem.outputs
        last_cell = outputs[-1].strides
        source = fill(
            _TEMPLATE,
            {
                "KERNEL": symbol,
                "CELL": CELL_NAMES[params.cell],
                "IS_WHOLE": int(is_whole),
                "STEPS": cell.steps,
                "BATCH": cell.batch,
                "HIDDEN": cell.hidden,
                "DIRECTIONS": params.num_directions,
                "IS_REVERSED_0": int(cell.is_reversed(0)),
                "IS_REVERSED_1": int(cell.is_reversed(1)),
                "VECTORS": values["vectors"],
                "ROWS": rows_per_unit,
                "ROW_TILE": values["row_tile"],
                "CHAINS": values["chains"],
                "RESETS_AFTER_PRODUCT": int(not cell.resets_before_product),
                "COUPLES_INPUT_FORGET": int(params.couples_input_forget),
                **{f"ACT_{d}_{number}": text for (d, number), text in acts.items()},
                "X_STRIDE_T": cell.stride("x", 0),
                "X_STRIDE_N": cell.stride("x", 1),
                "Y_STRIDE_T": outputs[0].strides[0],
                "Y_STRIDE_N": outputs[0].strides[1],
                "HIDDEN_ARG": cell.argument("hidden"),
                "HIDDEN_STRIDE_D": cell.stride("hidden", 0),
                "HIDDEN_STRIDE_N": cell.stride("hidden", 1),
                "CELL_ARG": cell.argument("cell"),
                "CELL_STRIDE_D": cell.stride("cell", 0),
                "CELL_STRIDE_N": cell.stride("cell", 1),
                "RECURRENT_BIAS_ARG": cell.argument("recurrent_bias"),
                "PEEPHOLES_ARG": cell.argument("peepholes"),
                "LENGTHS_ARG": cell.argument("lengths"),
                "CONTINUATION_ARG": cell.argument("continuation"),
                "CONTINUATION_STRIDE_T": cell.stride("continuation", 0),
                "CONTINUATION_STRIDE_N": cell.stride("continuation", 1),
                "OUTPUT_ARG": first_output,
                "LAST_STRIDE_D": outputs[1].strides[0],
                "LAST_STRIDE_N": outputs[1].strides[1],
                "LAST_CELL_STRIDE_D": last_cell[0],
                "LAST_CELL_STRIDE_N": last_cell[1],
                "WORKSPACE_ARG": first_output + len(outputs) if workspace else -1,
                "PACKS_HERE": int(packs_here),
                "R_STRIDE_D": cell.stride("recurrent", 0),
                "R_STRIDE_ROW": cell.stride("recurrent", 1),
            },
        )
        groups = padded // (values["vectors"] * target.vector_elems)
        units = params.num_directions * -(-cell.batch // rows_per_unit)
        launches = []
        if packs_here:
            phases = len(cell.phase_gates)
            launches.append(Launch(f"{symbol}_pack", params.num_directions * phases * groups))
        if is_whole:
            launches.append(Launch(symbol, units, scratch_bytes_per_worker=state_bytes))
        else:
            source += "".join(f"STEP({step})\n" for step in range(cell.steps))
            launches.append(Launch(f"{symbol}_begin", units))
            launches += [
                Launch(f"{symbol}_step{step}", units * groups) for step in range(cell.steps)
            ]
        return Program(source, tuple(launches), workspace_bytes=workspace)

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """R as [direction][phase][group][k][gate][lanes], padded with zeros; the rest dense."""
        cell = _required(problem)
        width = int(tactic.values["vectors"]) * target.vector_elems
        packed: list[Array | None] = []
        for role, values in zip(cell.params.input_roles, constants, strict=True):
            if values is None:
                packed.append(None)
            elif role == "recurrent":
                packed.append(_packed_recurrent(cell, values, width))
            else:
                dtype = np.int32 if role == "lengths" else np.float32
                packed.append(np.ascontiguousarray(values, dtype))
        return packed


FAMILY: KernelFamily = RecurrentFamily()


def _required(problem: Problem) -> Cell:
    cell = cell_of(problem, _DTYPES)
    if cell is None:
        raise ValueError(f"recurrent does not apply to {problem.text()}; ask applies() first")
    return cell


def _padded(cell: Cell, vectors: int, target: CpuTarget) -> int:
    width = vectors * target.vector_elems
    return -(-cell.hidden // width) * width


def _tiles(cell: Cell, target: CpuTarget) -> list[tuple[int, int, int]]:
    """Vectors of hidden units, batch rows and interleaved sums whose accumulators fit registers."""
    num_vectors = -(-cell.hidden // target.vector_elems)
    registers = target.num_vector_registers
    gates = max(cell.phase_gates)
    found = []
    for vectors in (1, 2, 4):
        if vectors > num_vectors or gates * vectors > registers - 4:
            continue
        if vectors > 1 and -(-num_vectors // vectors) * vectors > num_vectors * 1.2:
            continue  # too much padding
        rows = max(1, min(cell.batch, (registers - 4) // (gates * vectors) - (vectors == 1)))
        rows = -(-cell.batch // -(-cell.batch // rows))
        chains = max(1, min(4, 8 // (gates * vectors * rows)))
        found.append((vectors, rows, chains))
        if chains == 1 and gates * vectors * rows <= 8 and registers == 32:
            found.append((vectors, rows, 2))
    # R passes by once per tile of rows; eight sums or so hide the latency of multiply-adds.
    wanted = 8 if cell.batch == 1 else 16
    fewest = min(-(-cell.batch // rows) for _, rows, _ in found)
    found = [tile for tile in found if -(-cell.batch // tile[1]) <= 2 * fewest]
    found.sort(key=lambda t: (-(-cell.batch // t[1]), abs(t[0] * t[1] * t[2] * gates - wanted)))
    return found


def _rows_per_unit(cell: Cell, row_tile: int, num_workers: int, is_whole: bool) -> int:
    """Batch items of a unit: all of them for one worker, else so many that workers share alike."""
    if not is_whole:
        return cell.batch
    groups = max(1, min(num_workers // cell.params.num_directions, -(-cell.batch // row_tile)))
    return -(-cell.batch // groups)


def _may_share(cell: Cell, num_workers: int) -> bool:
    return num_workers > 1 and cell.steps <= _MAX_SHARED_STEPS and not cell.resets_before_product


def _step_us(cell: Cell, target: CpuTarget) -> float:
    elems = cell.params.num_directions * cell.params.num_gates * cell.hidden * cell.hidden
    return 4 * elems / (_CACHE_GBPS * 1e3) + 2.0 * elems * (cell.batch - 1) / (
        0.6 * target.fma_gflops_per_core * 1e3
    )


def _packed_recurrent(cell: Cell, values: Array, width: int) -> Array:
    directions, hidden = cell.params.num_directions, cell.hidden
    groups = -(-hidden // width)
    gates = values.astype(np.float32).reshape(directions, cell.params.num_gates, hidden, hidden)
    padded = np.zeros((directions, cell.params.num_gates, groups * width, hidden), np.float32)
    padded[:, :, :hidden] = gates
    parts = []
    for d in range(directions):
        first = 0
        for count in cell.phase_gates:
            phase = padded[d, first : first + count].reshape(count, groups, width, hidden)
            parts.append(phase.transpose(1, 3, 0, 2).ravel())
            first += count
    return np.concatenate(parts)
