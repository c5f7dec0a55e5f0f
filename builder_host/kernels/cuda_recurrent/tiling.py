"""How a persistent kernel shares R: between blocks and warps, and where each piece stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from builder_host.kernels.family import Array
from builder_host.kernels.recurrent.cell import Cell
from builder_host.targets.cuda import MAX_REGISTERS_PER_THREAD, WARP_THREADS, CudaTarget

_PIECE_BYTES = 16 * WARP_THREADS  # what a warp keeps in one register quad of each lane
_RESERVED_REGISTERS = 52  # addresses, loop state, the cell of one group
_ARRIVAL_BYTES = 64  # barriers that count what other blocks send
_RESERVED_SHARED_BYTES = 1024  # what the system takes of each block's shared memory


@dataclass(frozen=True, slots=True)
class Phase:
    """Products of a step that need the same state.

    Attributes:
        gates: rows of R per hidden unit.
        tiles_m: row tiles of one warp.
        held, shared: of a warp's pieces, those in registers and in shared memory.
        pieces: all pieces of a warp.
    """

    gates: int
    tiles_m: int
    held: int
    shared: int
    pieces: int

    @property
    def streamed(self) -> int:
        """Pieces that each step reads from L2 again."""
        return self.pieces - self.held - self.shared


@dataclass(frozen=True, slots=True)
class Tiling:
    """One tactic of the persistent kernel, worked out.

    Attributes:
        cluster: blocks that share one direction and `rows` batch items.
        warps, warps_k: of a block, and those that share rows.
        uses_mma: tensor cores on float16.
        rows: batch items of a cluster; units: hidden units of a block.
        padded_k: length of a state row, all warps' blocks of k included.
        element_bytes: of R.
        phases: one or two.
        shared_bytes: dynamic shared memory of a block.
    """

    cluster: int
    warps: int
    warps_k: int
    uses_mma: bool
    rows: int
    units: int
    padded_k: int
    element_bytes: int
    phases: tuple[Phase, ...]
    shared_bytes: int

    @property
    def tile_rows(self) -> int:
        """Rows of R in one tile."""
        return _tile(self.element_bytes, uses_mma=self.uses_mma)[0]

    @property
    def block_k(self) -> int:
        """Elements of k in one block."""
        return _tile(self.element_bytes, uses_mma=self.uses_mma)[1]


def plan_tiling(
    cell: Cell,
    target: CudaTarget,
    *,
    cluster: int,
    warps: int,
    warps_k: int,
    uses_mma: bool,
    rows: int,
) -> Tiling | None:
    """Share R between `cluster` blocks of `warps` warps; None where the state does not fit.

    Args:
        cell: of the problem.
        target: GPU.
        cluster: blocks that work together.
        warps: of a block; a power of two.
        warps_k: of these, how many share rows; divides `warps`.
        uses_mma: tensor cores; R is float16 then.
        rows: batch items of a cluster.
    """
    element = cell.layouts["recurrent"].dtype.size_bytes
    tile_rows, block_k = _tile(element, uses_mma=uses_mma)
    state_bytes = 2 if uses_mma else 4
    units = units_of_block(cell, cluster, uses_mma=uses_mma)
    padded_k = -(-cluster * units // (block_k * warps_k)) * block_k * warps_k
    per_tile = padded_k // block_k // warps_k * (2 if uses_mma else 1)
    tiles_m = _tiles_m(cell, units, tile_rows, warps // warps_k)
    partial_rows = warps // warps_k * tile_rows * max(tiles_m)
    num_states = 2 if len(tiles_m) == 1 else 3
    fixed = _ARRIVAL_BYTES + num_states * rows * (padded_k + 16 // state_bytes) * state_bytes
    fixed += warps_k * partial_rows * rows * 4
    room = target.shared_per_block_bytes - _RESERVED_SHARED_BYTES - fixed
    if room < 0:
        return None
    threads = warps * WARP_THREADS
    sums = max(tiles_m) * rows
    if uses_mma:  # two sums of a tile, or four of a lone one
        sums = max(16, 8 * max(tiles_m)) * -(-rows // 8)
    rounds = -(-4 * units * rows // threads)
    reserved = _RESERVED_REGISTERS + sums + 10 * (rounds - 1)
    registers = min(MAX_REGISTERS_PER_THREAD, target.registers_per_block // threads)
    held_left = max(0, (registers - reserved) // 4)
    shared_left = room // (warps * _PIECE_BYTES)
    phases = []
    for gates, tiles in zip(cell.phase_gates, tiles_m, strict=True):
        pieces = tiles * per_tile
        held = min(pieces, held_left)
        shared = min(pieces - held, shared_left)
        held_left, shared_left = held_left - held, shared_left - shared
        phases.append(Phase(gates, tiles, held, shared, pieces))
    return Tiling(
        cluster=cluster,
        warps=warps,
        warps_k=warps_k,
        uses_mma=uses_mma,
        rows=rows,
        units=units,
        padded_k=padded_k,
        element_bytes=element,
        phases=tuple(phases),
        shared_bytes=fixed + sum(p.shared for p in phases) * warps * _PIECE_BYTES,
    )


def step_clocks(tiling: Tiling, num_phases: int) -> float:
    """Clocks of one step: products, cell, exchange. Constants: H200, clusters of 8 and 16."""
    clocks = 0.0
    for phase in tiling.phases:
        pieces = phase.pieces * tiling.warps
        if tiling.uses_mma:
            clocks += pieces * 2.5
        else:
            per_piece = 16 / tiling.element_bytes / 4 * tiling.rows
            clocks += pieces * per_piece * (1.0 if tiling.element_bytes == 4 else 2.0)
        clocks += phase.shared * tiling.warps * 4 + phase.streamed * tiling.warps * 13
        reads = tiling.warps // tiling.warps_k * tiling.padded_k // tiling.block_k
        clocks += reads * (2.0 if tiling.uses_mma else 1.0 * tiling.rows)
        # On tensor cores short sums cost more than the reads that they save (2 was best).
        clocks += (60.0 if tiling.uses_mma else 10.0) * tiling.warps_k
    exchange = 150.0
    if tiling.cluster > 1:  # each send of 16 bytes is counted by its receiver
        state_bytes = 2 if tiling.uses_mma else 4
        sends = tiling.cluster * tiling.units * tiling.rows * state_bytes / 16
        exchange = 500.0 + 5.0 * sends
    return clocks + num_phases * (exchange + 15.0 * tiling.warps) + 200.0


def packed_recurrent(cell: Cell, tiling: Tiling, values: Array) -> Array:
    """R as [direction][rank][phase][warp][tile][block of k][piece][lane] of 16 bytes.

    Args:
        cell: of the problem.
        tiling: of the tactic.
        values: [D, G * H, H] in the element type that the kernel stores.
    """
    hidden, directions = cell.hidden, cell.params.num_directions
    gates = values.reshape(directions, cell.params.num_gates, hidden, hidden)
    padded = np.zeros(
        (directions, cell.params.num_gates, tiling.cluster * tiling.units, tiling.padded_k),
        values.dtype,
    )
    padded[:, :, :hidden, :hidden] = gates
    warps_m = tiling.warps // tiling.warps_k
    parts = []
    for d in range(directions):
        for rank in range(tiling.cluster):
            own = padded[d, :, rank * tiling.units : (rank + 1) * tiling.units]
            first = 0
            for phase in tiling.phases:
                rows = own[first : first + phase.gates].reshape(-1, tiling.padded_k)
                first += phase.gates
                count = warps_m * phase.tiles_m * tiling.tile_rows
                tiles = np.zeros((count, tiling.padded_k), values.dtype)
                tiles[: len(rows)] = rows
                parts.append(_pieces(tiles, tiling, phase, warps_m))
    return np.concatenate(parts)


def _pieces(rows: Array, tiling: Tiling, phase: Phase, warps_m: int) -> Array:
    """[warp m][tile][row][block][warp k][k] -> [warp m][warp k][tile][block][piece][lane]."""
    blocks = tiling.padded_k // tiling.block_k // tiling.warps_k
    shape: Sequence[int]
    if not tiling.uses_mma:
        shape = (warps_m, phase.tiles_m, WARP_THREADS, blocks, tiling.warps_k, tiling.block_k)
        return rows.reshape(shape).transpose(0, 4, 1, 3, 2, 5).ravel()
    # Lane 4 g + t: rows g and g + 8; k 8 t + 4 j + 2 p and the next, p the half of a fragment.
    shape = (warps_m, phase.tiles_m, 2, 8, blocks, tiling.warps_k, 4, 2, 2, 2)
    order = (0, 5, 1, 4, 7, 3, 6, 8, 2, 9)  # warps, tile, block, piece j, g, t, p, row half, k
    return rows.reshape(shape).transpose(order).ravel()


def splits(cell: Cell, *, cluster: int, warps: int, uses_mma: bool) -> list[int]:
    """Values of `warps_k` that give no warp more pieces than the best one does; large ones first.

    Fewer warps along the rows read the state less often.
    """
    tile_rows, block_k = _tile(cell.layouts["recurrent"].dtype.size_bytes, uses_mma=uses_mma)
    units = units_of_block(cell, cluster, uses_mma=uses_mma)
    pieces = {}
    for warps_k in (2**i for i in range(warps.bit_length())):
        tiles = sum(_tiles_m(cell, units, tile_rows, warps // warps_k))
        pieces[warps_k] = tiles * -(-cluster * units // (block_k * warps_k))
    least = min(pieces.values())
    return [warps_k for warps_k in reversed(pieces) if pieces[warps_k] == least]


def units_of_block(cell: Cell, cluster: int, *, uses_mma: bool) -> int:
    """Hidden units of a block, padded to what is stored at once."""
    together = (4 if cluster == 1 else 16) // (2 if uses_mma else 4)
    return -(-cell.hidden // (cluster * together)) * together


def _tile(element_bytes: int, *, uses_mma: bool) -> tuple[int, int]:
    """Rows of R in a tile, and elements of k in a block."""
    return (16, 32) if uses_mma else (WARP_THREADS, 16 // element_bytes)


def _tiles_m(cell: Cell, units: int, tile_rows: int, warps_m: int) -> tuple[int, ...]:
    return tuple(-(-gates * units // (tile_rows * warps_m)) for gates in cell.phase_gates)
