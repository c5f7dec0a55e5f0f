"""Recurrent layers with known input projections on GPUs, float16 or float32.

`persistent`: one cluster of blocks (one block where the GPU has no clusters) keeps R in registers
and shared memory over all steps. Blocks of different clusters never wait for each other, so nothing
depends on all of them being resident. `step`: one kernel per step, for any size and any GPU.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from builder_host.codegen import cuda_expression
from builder_host.codegen.cuda_expression import print_cuda
from builder_host.codegen.template import fill
from builder_host.expressions import Expr
from builder_host.kernels.cuda_loop_nest.cost import LAUNCH_US, bytes_us, clock_hz
from builder_host.kernels.cuda_recurrent.tiling import (
    Phase,
    Tiling,
    packed_recurrent,
    plan_tiling,
    splits,
    step_clocks,
)
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
from builder_host.kernels.recurrent.cell import CELL_NAMES, Cell, activation_texts, cell_of
from builder_host.network.layers.recurrent import RecurrentParams
from builder_host.targets.cuda import CudaTarget
from planformat.datatypes import DataType

_HERE = Path(__file__).parent
_PERSISTENT = (_HERE / "kernel_persistent.cu").read_text()
_STEP = (_HERE / "kernel_step.cu").read_text()
_HEADERS = Path(cuda_expression.__file__).parent / "cuda_include"
_TYPES = {DataType.FLOAT32: "float", DataType.FLOAT16: "half"}
_DTYPES = frozenset(_TYPES)

_CLUSTERS = (16, 8, 4, 2, 1)
_HAS_LARGE_CLUSTERS = ("90", "100", "103")  # 16 blocks; 8 is what every GPU with clusters runs
_MAX_OF_CLUSTER = 6  # tactics of one cluster size
_MAX_TACTICS = 12
_WARPS = (16, 8, 4)
_MAX_ROWS = 8  # batch items of one cluster: columns of one mma
_MAX_CODE_PIECES = 512  # of one warp; its products are unrolled
_STEP_WARPS = 4
_STEP_ROW_TILE = 4
_OPTIONAL_ROLES = ("recurrent_bias", "peepholes", "hidden", "cell", "lengths", "continuation")


class CudaRecurrentFamily:
    """Kernel family `cuda_recurrent`."""

    name = "cuda_recurrent"
    device_kind = "cuda"
    template_hash = template_hash(
        _PERSISTENT,
        _STEP,
        *(path.read_text() for path in sorted(_HERE.glob("*.py"))),
        *(path.read_text() for path in sorted(_HEADERS.glob("*.cuh"))),
    )

    def applies(self, problem: Problem, target: Any) -> bool:
        """Float16 or float32 throughout, projected."""
        return isinstance(target, CudaTarget) and cell_of(problem, _DTYPES) is not None

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """The cheapest of the forms."""
        cell = _required(problem)
        found = [cost for cost, _ in _persistent(cell, problem, target)]
        return min([*found, _step_form_us(cell, target)])

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Persistent forms by estimated time, then one kernel per step."""
        cell = _required(problem)
        ranked = [
            (cost, number, Tactic(self.name, (("form", "persistent"), *params)))
            for number, (cost, params) in enumerate(_persistent(cell, problem, target))
        ]
        ranked.append(
            (_step_form_us(cell, target), len(ranked), Tactic(self.name, (("form", "step"),)))
        )
        ranked.sort(key=lambda item: item[:2])
        kept: list[Tactic] = []
        for _, _, tactic in ranked:
            size = tactic.values.get("cluster")
            alike = sum(other.values.get("cluster") == size for other in kept)
            if alike < _MAX_OF_CLUSTER and len(kept) < _MAX_TACTICS - 1:
                kept.append(tactic)
        step = Tactic(self.name, (("form", "step"),))
        return kept if step in kept else [*kept, step]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One kernel for all steps, or one per step behind a first that lays down the state."""
        cell = _required(problem)
        stem = f"cuda_recurrent_{cell.params.cell}_{problem.outputs[0].dtype.text}_h{cell.hidden}"
        symbol = symbol_for(stem, self.template_hash, problem.text(), tactic.text, target.sm)
        common: dict[str, int | str] = {"KERNEL": symbol, **_parameters(cell, problem)}
        if tactic.values["form"] == "step":
            return _step_program(cell, symbol, common, target)
        tiling = _tiling(cell, tactic, target)
        parameters = {**common, **_tiling_parameters(cell.params, tiling)}
        groups = -(-cell.batch // tiling.rows)
        launch = GridLaunch(
            symbol,
            (tiling.cluster, groups, cell.params.num_directions),
            (32 * tiling.warps, 1, 1),
            (tiling.cluster, 1, 1),
            shared_memory_bytes=tiling.shared_bytes,
            is_dependent=target.has_dependent_launch,
        )
        return Program(fill(_PERSISTENT, parameters), (launch,))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """R in pieces for the persistent form; everything else as it lies."""
        cell = _required(problem)
        kind = np.float16 if problem.inputs[0].dtype is DataType.FLOAT16 else np.float32
        packed: list[Array | None] = []
        for role, values in zip(cell.params.input_roles, constants, strict=True):
            if values is None:
                packed.append(None)
            elif role == "lengths":
                packed.append(np.ascontiguousarray(values, np.int32))
            elif role == "recurrent" and tactic.values["form"] == "persistent":
                tiling = _tiling(cell, tactic, target)
                packed.append(packed_recurrent(cell, tiling, values.astype(kind, copy=False)))
            else:
                packed.append(np.ascontiguousarray(values, kind))
        return packed


FAMILY: KernelFamily = CudaRecurrentFamily()


def _required(problem: Problem) -> Cell:
    cell = cell_of(problem, _DTYPES)
    if cell is None:
        raise ValueError(f"cuda_recurrent does not apply to {problem.text()}; ask applies() first")
    return cell


def _persistent(
    cell: Cell, problem: Problem, target: CudaTarget
) -> list[tuple[float, tuple[tuple[str, int | str], ...]]]:
    """Estimated microseconds and parameters of each persistent form that fits."""
    if not problem.is_constant[1]:
        return []
    is_half = problem.inputs[0].dtype is DataType.FLOAT16
    uses_mma = is_half and target.has_mma_f16
    found = []
    # What blocks send each other came with the toolkit that brought TMA.
    largest = 16 if target.architecture.name in _HAS_LARGE_CLUSTERS else 8
    clusters = [c for c in _CLUSTERS if c <= (largest if target.has_tma else 1)]
    shapes = [
        (cluster, warps, split, rows)
        for cluster, warps in itertools.product(clusters, _WARPS)
        for split in splits(cell, cluster=cluster, warps=warps, uses_mma=uses_mma)
        for rows in _row_choices(cell.batch)
    ]
    for cluster, warps, split, rows in shapes:
        if cluster > target.num_sms or (cluster > 1 and cell.hidden < 8 * cluster):
            continue
        tiling = plan_tiling(
            cell,
            target,
            cluster=cluster,
            warps=warps,
            warps_k=split,
            uses_mma=uses_mma,
            rows=rows,
        )
        if tiling is None or _code_pieces(tiling) > _MAX_CODE_PIECES:
            continue
        clocks = step_clocks(tiling, len(tiling.phases)) * cell.steps
        groups = -(-cell.batch // rows) * cell.params.num_directions
        waves = -(-groups * cluster // target.num_sms)
        params: tuple[tuple[str, int | str], ...] = (
            ("cluster", cluster),
            ("mma", int(uses_mma)),
            ("rows", rows),
            ("split", split),
            ("warps", warps),
        )
        found.append((LAUNCH_US + waves * clocks / clock_hz(target) * 1e6, params))
    return found


def _row_choices(batch: int) -> list[int]:
    """Batch items of a cluster: as many as a tile has columns, or fewer in more clusters."""
    found = []
    for most in (_MAX_ROWS, _MAX_ROWS // 2, _MAX_ROWS // 4):
        groups = -(-batch // most)
        found.append(-(-batch // groups))
    return list(dict.fromkeys(found))


def _code_pieces(tiling: Tiling) -> int:
    """Pieces that the unrolled products of one warp name; they bound compile time."""
    return sum(phase.pieces for phase in tiling.phases)


def _step_form_us(cell: Cell, target: CudaTarget) -> float:
    elems = cell.params.num_directions * cell.params.num_gates * cell.hidden * cell.hidden
    weights = elems * cell.layouts["recurrent"].dtype.size_bytes
    passes = -(-cell.batch // _STEP_ROW_TILE)
    step_us = len(cell.phase_gates) * LAUNCH_US + bytes_us(weights * passes, target)
    return LAUNCH_US + cell.steps * step_us


def _tiling(cell: Cell, tactic: Tactic, target: CudaTarget) -> Tiling:
    values = tactic.values
    tiling = plan_tiling(
        cell,
        target,
        cluster=int(values["cluster"]),
        warps=int(values["warps"]),
        warps_k=int(values["split"]),
        uses_mma=bool(values["mma"]),
        rows=int(values["rows"]),
    )
    if tiling is None:
        raise ValueError(f"{tactic.text}: the state does not fit into shared memory")
    return tiling


def _parameters(cell: Cell, problem: Problem) -> dict[str, int | str]:
    """What both kernels are told."""
    params, outputs = cell.params, problem.outputs
    element = _TYPES[outputs[0].dtype]
    acts = activation_texts(params, lambda e: _printed(e, is_half=element == "half"))
    types = {role: "int" if role == "lengths" else element for role in _OPTIONAL_ROLES}
    present = [role for role in params.input_roles if role in types]
    absent = [role for role in _OPTIONAL_ROLES if role not in present]
    last_cell = outputs[-1].strides
    return {
        "T": element,
        "CELL": CELL_NAMES[params.cell],
        "STEPS": cell.steps,
        "BATCH": cell.batch,
        "HIDDEN": cell.hidden,
        "DIRECTIONS": params.num_directions,
        "IS_REVERSED_0": int(cell.is_reversed(0)),
        "IS_REVERSED_1": int(cell.is_reversed(1)),
        "COUPLES_INPUT_FORGET": int(params.couples_input_forget),
        **{f"ACT_{d}_{number}": text for (d, number), text in acts.items()},
        "X_STRIDE_T": cell.stride("x", 0),
        "X_STRIDE_N": cell.stride("x", 1),
        "Y_STRIDE_T": outputs[0].strides[0],
        "Y_STRIDE_N": outputs[0].strides[1],
        "OPTIONAL_PARAMETERS": "".join(f", const {types[role]} *{role}" for role in present),
        "ABSENT_PARAMETERS": " ".join(
            f"const {types[role]} *const {role} = nullptr;" for role in absent
        ),
        "LAST_CELL_PARAMETER": f", {element} *last_cell" if params.cell == "lstm" else "",
        **{f"HAS_{role.upper()}": int(role in present) for role in _OPTIONAL_ROLES},
        "HIDDEN_STRIDE_D": cell.stride("hidden", 0),
        "HIDDEN_STRIDE_N": cell.stride("hidden", 1),
        "CELL_STRIDE_D": cell.stride("cell", 0),
        "CELL_STRIDE_N": cell.stride("cell", 1),
        "CONTINUATION_STRIDE_T": cell.stride("continuation", 0),
        "CONTINUATION_STRIDE_N": cell.stride("continuation", 1),
        "LAST_STRIDE_D": outputs[1].strides[0],
        "LAST_STRIDE_N": outputs[1].strides[1],
        "LAST_CELL_STRIDE_D": last_cell[0],
        "LAST_CELL_STRIDE_N": last_cell[1],
    }


def _printed(expr: Expr, *, is_half: bool) -> str:
    """An activation of `v`; what ends in float16 needs no more than the fast functions."""
    text = print_cuda(expr, ["v"])
    if is_half:
        text = text.replace("ep_sigmoid_s(", "ep_sigmoid_fast(")
        text = text.replace("ep_tanh_s(", "ep_tanh_fast(")
    return text


def _tiling_parameters(params: RecurrentParams, tiling: Tiling) -> dict[str, int | str]:
    """What only the persistent kernel is told."""
    first, *rest = tiling.phases
    second = rest[0] if rest else Phase(0, 0, 0, 0, 0)
    return {
        # Float16 with sigmoid gates and tanh, nothing clipped: one fast function serves all gates.
        "IS_USUAL": int(tiling.element_bytes == 2 and not params.activations and not params.clip),
        "USES_MMA": int(tiling.uses_mma),
        "CLUSTER": tiling.cluster,
        "WARPS": tiling.warps,
        "WARPS_K": tiling.warps_k,
        "ROWS": tiling.rows,
        "UNITS": tiling.units,
        "PADDED_K": tiling.padded_k,
        **{
            f"{name}_{number}": value
            for number, phase in enumerate((first, second))
            for name, value in (
                ("GATES", phase.gates),
                ("TILES_M", phase.tiles_m),
                ("HELD", phase.held),
                ("SHARED", phase.shared),
            )
        },
    }


def _step_program(
    cell: Cell, symbol: str, common: dict[str, int | str], target: CudaTarget
) -> Program:
    params = cell.params
    row_tile = min(cell.batch, _STEP_ROW_TILE)
    begin = f"{symbol}_begin"
    parameters = {
        **common,
        "BEGIN_KERNEL": begin,
        "WARPS": _STEP_WARPS,
        "ROW_TILE": row_tile,
        "HAS_PHASES": int(cell.resets_before_product),
        "R_STRIDE_D": cell.stride("recurrent", 0),
        "R_STRIDE_ROW": cell.stride("recurrent", 1),
    }
    state = params.num_directions * cell.batch * cell.hidden
    is_dependent = target.has_dependent_launch
    step = GridLaunch(
        symbol,
        (-(-cell.hidden // _STEP_WARPS), -(-cell.batch // row_tile), params.num_directions),
        (32 * _STEP_WARPS, 1, 1),
        is_dependent=is_dependent,
    )
    first = GridLaunch(begin, (-(-state // 256), 1, 1), (256, 1, 1), is_dependent=is_dependent)
    steps = cell.steps * len(cell.phase_gates)
    return Program(fill(_STEP, parameters), (first, *[step] * steps), 4 * (5 * state + 4))
