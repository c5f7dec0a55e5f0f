"""Deconvolution of blocked tensors (CPU, float32): sub-pixel tiles, depthwise tiles, or generic.

Dense and block-aligned groups run as one stride-1 convolution per phase (`mode=dense`), one kernel
per channel likewise (`mode=depthwise`). `mode=generic` is slow and takes every other case: groups
that split a block, negative pads, strides so large that the unrolled tiles would not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from builder_host.codegen.template import fill
from builder_host.kernels.deconvolution.phases import Axis, Phase, Tiles, phases, tiles
from builder_host.kernels.family import (
    Array,
    Launch,
    Problem,
    Program,
    Tactic,
    symbol_for,
    template_hash,
)
from builder_host.kernels.store_epilogue import (
    epilogue_parameters,
    operands_apply,
    pack_operands,
    pixel_offset,
    stride_parameters,
    with_bias_as_operand,
)
from builder_host.kernels.traffic import traffic_us
from builder_host.targets.target import CpuTarget
from planformat.datatypes import DataType, TensorFormat

_HERE = Path(__file__).parent
_TILED = (_HERE / "kernel.c").read_text()
_GENERIC = (_HERE / "kernel_generic.c").read_text()

_WIDTHS = {32: (14, 9, 6), 16: (6, 4, 12)}
# Multiply-adds in the text of a kernel; beyond that compile time and code size are out of hand.
_MAX_UNROLLED = 8192


class DeconvolutionFamily:
    """Kernel family `deconvolution` (CPU)."""

    name = "deconvolution"
    device_kind = "cpu"
    template_hash = template_hash(
        _TILED, _GENERIC, Path(__file__).read_text(), (_HERE / "phases.py").read_text()
    )

    def applies(self, problem: Problem, target: Any) -> bool:
        """Float32, rank 4, blocked input and output, constant weights."""
        if problem.kind != "deconvolution" or not isinstance(target, CpuTarget):
            return False
        layouts = (*problem.inputs, *problem.outputs)
        if any(layout.dtype is not DataType.FLOAT32 for layout in layouts):
            return False
        x, w, y = problem.inputs[0], problem.inputs[1], problem.outputs[0]
        if x.format is not target.blocked_format or y.format is not target.blocked_format:
            return False
        if problem.is_constant[0] or not problem.is_constant[1]:
            return False
        if w.format is not TensorFormat.LINEAR or 0 in (*x.shape, *y.shape):
            return False
        return operands_apply(with_bias_as_operand(problem, 2, 1), 1)

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """Arithmetic at 80 % of peak (2 % for the generic mode), or memory traffic."""
        x, w = problem.inputs[0], problem.inputs[1]
        flops = 2.0 * x.shape[0] * x.shape[2] * x.shape[3] * w.type.num_elems
        mode = self.tactics(problem, target)[0].values["mode"]
        share = {"dense": 0.8, "depthwise": 0.3, "generic": 0.02}[str(mode)]
        flops_us = flops / (share * target.fma_gflops_per_core * 1e3)
        return float(max(flops_us, traffic_us(problem, target)) + 0.1)

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Tiles of outputs by channel blocks; the generic mode alone where no tile applies."""
        mode = _mode(problem, target)
        found: list[Tactic] = []
        if mode != "generic":
            blocks = _blocks_per_group(problem, target) if mode == "dense" else 1
            width = -(-problem.outputs[0].shape[3] // problem.params.strides[1])
            for most in _WIDTHS[target.num_vector_registers]:
                tile = -(-width // -(-width // most))
                # Accumulators, the vectors of the weights and one broadcast fit in registers.
                vectors = min((target.num_vector_registers - 2) // (tile + 1), blocks, 4)
                tactic = Tactic(
                    self.name, (("mode", mode), ("tile", tile), ("vectors", max(1, vectors)))
                )
                if tactic not in found and _num_unrolled(problem, tactic) <= _MAX_UNROLLED:
                    found.append(tactic)
        return found or [Tactic(self.name, (("mode", "generic"),))]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch; a unit is some output rows of one set of output channels."""
        mode = str(tactic.values["mode"])
        kernel = "x".join(map(str, problem.inputs[1].shape[2:]))
        symbol = symbol_for(
            f"deconv_{mode}_f32_{kernel}_{target.isa}",
            self.template_hash, problem.text(), tactic.text, target.isa,
        )  # fmt: skip
        params, x, y = problem.params, problem.inputs[0], problem.outputs[0]
        parameters: dict[str, int | str] = {
            "KERNEL": symbol,
            "INPUT_H": x.shape[2],
            "INPUT_W": x.shape[3],
            "OUTPUT_H": y.shape[2],
            "STRIDE_H": params.strides[0],
            "STRIDE_W": params.strides[1],
            "PAD_TOP": params.pads_begin[0],
            "PAD_LEFT": params.pads_begin[1],
            **stride_parameters("INPUT", x),
            **stride_parameters("OUTPUT", y),
            "OUTPUT_ARG": len(problem.inputs),
            **epilogue_parameters(
                with_bias_as_operand(problem, 2, 1),
                1,
                channel="cb * EP_VL",
                full_offset=pixel_offset,
            ),
        }
        if mode == "generic":
            units = x.shape[0] * y.num_channel_blocks * y.shape[2]
            source = fill(_GENERIC, {**parameters, **_generic_parameters(problem)})
            return Program(source, (Launch(symbol, units),))
        sets, rows, more = _tiled_parameters(problem, tactic, target)
        units = x.shape[0] * sets * -(-y.shape[2] // rows)
        return Program(fill(_TILED, {**parameters, **more}), (Launch(symbol, units),))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """Weights in order of use, as the templates describe."""
        weights = constants[1]
        if weights is None:
            raise ValueError(f"deconvolution needs constant weights to pack {problem.text()}")
        weights = weights.astype(np.float32, copy=False)
        lanes = target.vector_elems
        packed = (
            _pack_generic(problem, weights, lanes)
            if tactic.values["mode"] == "generic"
            else _pack_tiled(problem, tactic, weights, lanes)
        )
        canonical = with_bias_as_operand(problem, 2, 1)
        return [None, packed, *pack_operands(canonical, 1, constants, lanes)]


FAMILY = DeconvolutionFamily()


def _mode(problem: Problem, target: CpuTarget) -> str:
    params, lanes = problem.params, target.vector_elems
    channels, outputs = problem.inputs[0].shape[1], problem.outputs[0].shape[1]
    if min(params.pads_begin) < 0:
        return "generic"
    if params.groups == 1:
        return "dense"
    if params.groups == channels == outputs:
        return "depthwise"
    aligned = channels // params.groups % lanes == 0 and outputs // params.groups % lanes == 0
    return "dense" if aligned else "generic"


def _blocks_per_group(problem: Problem, target: CpuTarget) -> int:
    return int(-(-problem.outputs[0].shape[1] // problem.params.groups // target.vector_elems))


def _axes(problem: Problem) -> tuple[tuple[Phase, ...], tuple[Phase, ...]]:
    params = problem.params
    kernel = problem.inputs[1].shape[2:]
    rows, columns = (phases(kernel[i], params.strides[i], params.dilations[i]) for i in range(2))
    return rows, columns


def _column_tiles(problem: Problem, tile: int) -> list[tuple[Tiles, ...]]:
    params, x, y = problem.params, problem.inputs[0], problem.outputs[0]
    axis = Axis(x.shape[3], y.shape[3], params.strides[1], params.pads_begin[1])
    return [tiles(axis, number, phase, tile) for number, phase in enumerate(_axes(problem)[1])]


def _num_unrolled(problem: Problem, tactic: Tactic) -> int:
    """Multiply-adds that the unrolled tiles hold."""
    tile, vectors = int(tactic.values["tile"]), int(tactic.values["vectors"])
    columns = _axes(problem)[1]
    return sum(
        max(1, len(phase.taps)) * vectors * sum(piece.count for piece in pieces)
        for phase, pieces in zip(columns, _column_tiles(problem, tile), strict=True)
    )


def _table(values: Sequence[object]) -> str:
    return "{" + ", ".join(map(str, values)) + "}"


def _offsets(axis: Sequence[Phase]) -> str:
    widest = max(1, *(len(phase.taps) for phase in axis))
    rows = [phase.offsets + (0,) * (widest - len(phase.offsets)) for phase in axis]
    return _table([_table(row) for row in rows])


def _tiled_parameters(
    problem: Problem, tactic: Tactic, target: CpuTarget
) -> tuple[int, int, dict[str, int | str]]:
    """Number of output channel sets, output rows per unit, and template parameters."""
    x, w, y = problem.inputs[0], problem.inputs[1], problem.outputs[0]
    params, lanes = problem.params, target.vector_elems
    tile, vectors = int(tactic.values["tile"]), int(tactic.values["vectors"])
    depthwise = tactic.values["mode"] == "depthwise"
    per_group = 1 if depthwise else _blocks_per_group(problem, target)
    groups = y.num_channel_blocks // per_group
    sets = groups * -(-per_group // vectors)
    rows, columns = _axes(problem)
    starts: list[list[int]] = []
    taps = 0
    for row_phase in rows:
        starts.append([])
        for column_phase in columns:
            starts[-1].append(taps)
            taps += len(row_phase.taps) * len(column_phase.taps)
    calls = []
    for number, pieces in enumerate(_column_tiles(problem, tile)):
        for piece in pieces:
            call = f"tile(row, {number}, %s, {piece.count}, {int(piece.is_inner)}, vectors)"
            if piece.repeat == 1:
                calls.append(call % piece.start)
            else:
                end = piece.start + piece.repeat * piece.count
                head = f"for (int64_t q = {piece.start}; q < {end}; q += {piece.count})"
                calls.append(f"{head} {call % 'q'}")
    rows_per_unit = max(1, 512 // y.shape[3], params.strides[0])
    while rows_per_unit > params.strides[0]:
        if x.shape[0] * sets * -(-y.shape[2] // rows_per_unit) >= 8 * problem.num_workers:
            break
        rows_per_unit = max(params.strides[0], rows_per_unit // 2)
    return sets, rows_per_unit, {
        "IS_DEPTHWISE": int(depthwise),
        "INPUT_CHANNELS": 1 if depthwise else x.shape[1] // params.groups,
        "OUTPUT_BLOCKS": y.num_channel_blocks,
        "OUTPUT_BLOCKS_PER_GROUP": per_group,
        "INPUT_BLOCKS_PER_GROUP": 1 if depthwise else -(-x.shape[1] // params.groups // lanes),
        "VECTORS": vectors,
        "VECTORS_LAST": (per_group - 1) % vectors + 1,
        "KERNEL_AREA": w.shape[2] * w.shape[3],
        "MAX_TAPS_H": max(1, *(len(phase.taps) for phase in rows)),
        "MAX_TAPS_W": max(1, *(len(phase.taps) for phase in columns)),
        "NUM_TAPS_H": _table([len(phase.taps) for phase in rows]),
        "NUM_TAPS_W": _table([len(phase.taps) for phase in columns]),
        "OFFSETS_H": _offsets(rows),
        "OFFSETS_W": _offsets(columns),
        "PHASE_WEIGHTS": _table([_table(row) for row in starts]),
        "TILE": tile,
        "COLUMN_TILES": ";\n".join(calls),
        "ROWS_PER_UNIT": rows_per_unit,
    }  # fmt: skip


def _generic_parameters(problem: Problem) -> dict[str, int | str]:
    w, params = problem.inputs[1], problem.params
    return {
        "OUTPUT_W": problem.outputs[0].shape[3],
        "CHANNELS_PER_GROUP": w.shape[0] // params.groups,
        "OUTPUTS_PER_GROUP": w.shape[1],
        "GROUPS": params.groups,
        "KERNEL_H": w.shape[2],
        "KERNEL_W": w.shape[3],
        "DILATION_H": params.dilations[0],
        "DILATION_W": params.dilations[1],
    }


def _pack_tiled(problem: Problem, tactic: Tactic, weights: Array, lanes: int) -> Array:
    """[set][phase h][phase w][input block][tap h][tap w][lane][output channel]."""
    groups, vectors = problem.params.groups, int(tactic.values["vectors"])
    if tactic.values["mode"] == "depthwise":
        # One channel a lane: as if a group were a block of outputs that all read one channel.
        stored = -(-groups // lanes) * lanes
        padded = np.zeros((stored, *weights.shape[2:]), np.float32)
        padded[:groups] = weights[:, 0]
        dense = padded.reshape(-1, 1, lanes, *weights.shape[2:])
    else:
        outputs = weights.shape[1]
        dense = weights.reshape(groups, -1, *weights.shape[1:])
        dense = np.pad(dense, ((0, 0), (0, 0), (0, -outputs % lanes), (0, 0), (0, 0)))
    rows, columns = _axes(problem)
    parts = []
    for group in dense:
        for start in range(0, group.shape[1], vectors * lanes):
            outputs_of_set = group[:, start : start + vectors * lanes]
            for row_phase in rows:
                for column_phase in columns:
                    taps = outputs_of_set[:, :, row_phase.taps][:, :, :, column_phase.taps]
                    parts += [
                        taps[c : c + lanes].transpose(2, 3, 0, 1).ravel()
                        for c in range(0, len(taps), lanes)
                    ]
    return np.concatenate(parts)


def _pack_generic(problem: Problem, weights: Array, lanes: int) -> Array:
    """[output block][kernel row][kernel column][channel of the group][lane]."""
    groups = problem.params.groups
    _, per_group, kernel_h, kernel_w = weights.shape
    by_output = weights.reshape(groups, -1, per_group, kernel_h, kernel_w)
    by_output = by_output.transpose(0, 2, 3, 4, 1).reshape(
        groups * per_group, kernel_h, kernel_w, -1
    )
    by_output = np.pad(by_output, ((0, -len(by_output) % lanes), (0, 0), (0, 0), (0, 0)))
    blocks = by_output.reshape(-1, lanes, *by_output.shape[1:]).transpose(0, 2, 3, 4, 1)
    return np.ascontiguousarray(blocks).ravel()
