"""Implicit-GEMM convolution of 8-bit tensors on tensor cores: exact int32 sums, sm_75 and later.

Any kernel, stride, padding, dilation, batch and channel count; groups of at least 8 channels and
filters. Input(0) of the epilogue is the sum rounded to float32, and the epilogue is computed in
float32 operation by operation, so that results agree bit by bit with other devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder_host.codegen.template import fill
from builder_host.kernels.cuda_conv_igemm.family import tile_of_tactic, tile_tactic
from builder_host.kernels.cuda_conv_igemm.tiles import SUM_THREADS, Tile
from builder_host.kernels.cuda_conv_int8.halves import (
    in_halves,
    packed_weights,
    ranked_tiles,
    sum_bytes,
    tile_us,
)
from builder_host.kernels.cuda_conv_simt.epilogue import (
    CONVOLUTION_SOURCE,
    epilogue_parameters,
    grouped_weights,
    pack_operands,
    staged_operands,
    with_convolution,
)
from builder_host.kernels.cuda_conv_simt.geometry import Convolution, convolution_of
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

_HERE = Path(__file__).parent
_TEMPLATE = (_HERE / "kernel.cu").read_text()
_SUMS = (_HERE / "sums.cuh").read_text()
TERMS_SOURCE = (_HERE / "terms.cuh").read_text()
_SUMS_INCLUDE = '#include "sums.cuh"\n'
_TERMS_INCLUDE = '#include "terms.cuh"\n'
_MOST_TACTICS = 12
_MIN_GROUP = 8
TEMPLATE_HASH = template_hash(
    _TEMPLATE,
    _SUMS,
    TERMS_SOURCE,
    CONVOLUTION_SOURCE,
    *((_HERE / name).read_text() for name in ("family.py", "halves.py")),
    *((_HERE.parent / "cuda_conv_igemm" / name).read_text() for name in ("tiles.py", "weights.py")),
)


class CudaConvInt8:
    """Family `cuda_conv_int8`; tactic parameters as `cuda_conv_igemm`, k in pairs of channels."""

    name = "cuda_conv_int8"
    device_kind = "cuda"
    template_hash = TEMPLATE_HASH

    def applies(self, problem: Problem, target: Any) -> bool:
        """8-bit x in NHWC, tensor cores with int8, groups that fill fragments."""
        conv = convolution_of(problem, target, integers=True)
        return conv is not None and _fits(conv, target)

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """The best tile's estimate."""
        conv = _require(problem, target)
        return min(tile_us(tile, conv, target) for tile in ranked_tiles(conv, target, 1))

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Tiles by the estimate."""
        return tactics_of(self.name, _require(problem, target), target)

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch, or two where splits are added through a workspace."""
        conv = _require(problem, target)
        return program_of("conv_int8", conv, problem, tactic, target)

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """Weights as fragments, channel vectors as floats padded to whole tiles."""
        conv = _require(problem, target)
        weights = constants[1]
        if weights is None:
            raise ValueError(f"{self.name}: the weights of {problem.text()} are not given")
        return packed_of(conv, tactic, grouped_weights(problem, conv, weights), constants)


def tactics_of(name: str, conv: Convolution, target: CudaTarget) -> list[Tactic]:
    """Tactics of a convolution, the expected best first."""
    tiles = ranked_tiles(conv, target, _MOST_TACTICS)
    ranked = sorted(tiles, key=lambda tile: tile_us(tile, conv, target))
    return [tile_tactic(name, tile) for tile in ranked]


def program_of(
    stem: str, conv: Convolution, problem: Problem, tactic: Tactic, target: CudaTarget
) -> Program:
    """The kernel of a convolution, or of what is computed as one.

    Args:
        stem: beginning of the symbol.
        conv: what is computed.
        problem: that the program is for.
        tactic: of `tactics_of`.
        target: the GPU.
    """
    tile, halves = tile_of_tactic(tactic), in_halves(conv)
    symbol = symbol_for(
        f"{stem}_{tile.pixels}x{tile.filters}x{2 * tile.tile_k}_s{tile.stages}_sm{target.sm}",
        *(TEMPLATE_HASH, problem.text(), tactic.text),
    )
    stages, operand_bytes = staged_operands(conv, tile.filters)
    shared = _shared_bytes(tile, halves)
    parameters: dict[str, int | str] = {
        **conv.parameters_of(_TEMPLATE),
        **epilogue_parameters(conv),
        "SYMBOL": symbol,
        "TILE_PIXELS": tile.pixels,
        "TILE_FILTERS": tile.filters,
        "TILE_K": 2 * tile.tile_k,
        "STAGES": tile.stages,
        "WARPS_M": tile.warps_m,
        "WARPS_N": tile.warps_n,
        "WARPS_K": tile.warps_k,
        "SPLITS": tile.splits,
        "USES_CLUSTER": int(tile.uses_cluster),
        "OPERAND_STAGES": stages,
        "OPERANDS_AT": shared,
    }
    template = with_terms(with_convolution(_TEMPLATE)).replace(_SUMS_INCLUDE, _SUMS)
    source = fill(template, parameters)
    is_dependent = target.has_dependent_launch
    launches = [
        GridLaunch(
            symbol,
            tile.grid(halves),
            (tile.threads, 1, 1),
            (tile.splits if tile.uses_cluster else 1, 1, 1),
            shared + operand_bytes,
            is_dependent,
        )
    ]
    workspace = tile.workspace_bytes(halves)
    if workspace:
        runs = conv.pixels * conv.groups * tile.padded_filters(halves) // 4
        grid = (-(-runs // SUM_THREADS), 1, 1)
        launches.append(
            GridLaunch(f"{symbol}_sum", grid, (SUM_THREADS, 1, 1), is_dependent=is_dependent)
        )
    return Program(source, tuple(launches), workspace)


def with_terms(template: str) -> str:
    """The template with its line `#include "terms.cuh"` replaced by that file's text."""
    if _TERMS_INCLUDE not in template:
        raise ValueError(f"the template has no line {_TERMS_INCLUDE.strip()}")
    return template.replace(_TERMS_INCLUDE, TERMS_SOURCE)


def packed_of(
    conv: Convolution, tactic: Tactic, weights: Array, constants: Sequence[Array | None]
) -> list[Array | None]:
    """Packed constants of `program_of`; weights as `packed_weights` takes them."""
    tile = tile_of_tactic(tactic)
    padded = tile.padded_filters(in_halves(conv))
    return [None, packed_weights(weights, conv, tile), *pack_operands(conv, constants, padded)]


def _shared_bytes(tile: Tile, halves: Convolution) -> int:
    return max(tile.stages * tile.stage_bytes(halves), sum_bytes(tile))


def _fits(conv: Convolution, target: CudaTarget) -> bool:
    if not target.has_mma_s8 or (conv.x_strides[1] != 1 and conv.channels > 1):
        return False
    if conv.groups > 1 and min(conv.group_channels, conv.group_filters) < _MIN_GROUP:
        return False
    return bool(ranked_tiles(conv, target, 1))


def _require(problem: Problem, target: Any) -> Convolution:
    conv = convolution_of(problem, target, integers=True)
    if conv is None or not _fits(conv, target):
        raise ValueError(f"cuda_conv_int8 does not apply to {problem.text()}")
    return conv


FAMILY = CudaConvInt8()
