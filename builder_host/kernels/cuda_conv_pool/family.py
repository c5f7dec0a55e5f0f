"""Convolution and 2x2 maximum in one kernel on tensor cores: fp16, float sums, sm_75 and later."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder_host.codegen.template import fill
from builder_host.kernels.cuda_conv_igemm.family import SUMS_SOURCE, with_sums
from builder_host.kernels.cuda_conv_igemm.tiles import Tile
from builder_host.kernels.cuda_conv_igemm.weights import fragment_weights
from builder_host.kernels.cuda_conv_pool.geometry import PooledConvolution, pooled_convolution_of
from builder_host.kernels.cuda_conv_pool.tiles import ranked
from builder_host.kernels.cuda_conv_simt.epilogue import (
    CONVOLUTION_SOURCE,
    epilogue_parameters,
    grouped_weights,
    pack_operands,
    staged_operands,
    with_convolution,
)
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
WINDOWS_SOURCE = (_HERE / "windows.cuh").read_text()
GEOMETRY_SOURCE = (_HERE / "geometry.py").read_text()
_WINDOWS_INCLUDE = '#include "windows.cuh"\n'
_MOST_TACTICS = 12
_NAMES = ("pixels", "filters", "warps_m", "warps_n", "k", "stages", "rows", "columns")


class CudaConvPool:
    """Family `cuda_conv_pool`.

    Tactic parameters: rows, columns: rectangle of the convolution's pixels of a block, `pixels` in
    all. filters: of a block. k: channels of a stage. warps_m, warps_n: warps over pixels and over
    filters. stages: steps of k in shared memory.
    """

    name = "cuda_conv_pool"
    device_kind = "cuda"
    template_hash = template_hash(
        _TEMPLATE,
        WINDOWS_SOURCE,
        SUMS_SOURCE,
        CONVOLUTION_SOURCE,
        GEOMETRY_SOURCE,
        *((_HERE / name).read_text() for name in ("family.py", "tiles.py")),
    )

    def applies(self, problem: Problem, target: Any) -> bool:
        """Half x and y, one group, x dense in NHWC with a multiple of eight channels."""
        conv = pooled_convolution_of(problem, target)
        return conv is not None and _fits(conv, target)

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """The best tile's estimate."""
        return ranked(_require(problem, target), target)[0][0]

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Tiles by the estimate."""
        tiles = ranked(_require(problem, target), target)
        return [_tactic(self.name, tile) for _, tile in tiles[:_MOST_TACTICS]]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch."""
        conv = _require(problem, target)
        tile = _tile(tactic)
        symbol = symbol_for(
            f"conv_pool_f16_{tile.rows}x{tile.columns}x{tile.filters}x{tile.tile_k}"
            f"_s{tile.stages}_sm{target.sm}",
            self.template_hash, problem.text(), tactic.text,
        )  # fmt: skip
        stages, operand_bytes = staged_operands(conv, tile.filters)
        shared_bytes = tile.shared_bytes(conv)
        parameters: dict[str, int | str] = {
            **conv.parameters_of(_TEMPLATE),
            **epilogue_parameters(conv),
            "SYMBOL": symbol,
            "TILE_PIXELS": tile.pixels,
            "TILE_H": tile.rows,
            "TILE_W": tile.columns,
            "TILE_FILTERS": tile.filters,
            "TILE_K": tile.tile_k,
            "STAGES": tile.stages,
            "WARPS_M": tile.warps_m,
            "WARPS_N": tile.warps_n,
            "OPERAND_STAGES": stages,
            "OPERANDS_AT": shared_bytes,
        }
        source = fill(with_windows(with_sums(with_convolution(_TEMPLATE))), parameters)
        launch = GridLaunch(
            symbol,
            tile.grid(conv),
            (tile.threads, 1, 1),
            shared_memory_bytes=shared_bytes + operand_bytes,
            is_dependent=target.has_dependent_launch,
        )
        return Program(source, (launch,))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """Weights as fragments, channel vectors as floats padded to whole tiles."""
        conv = _require(problem, target)
        weights = constants[1]
        if weights is None:
            raise ValueError(f"{self.name}: the weights of {problem.text()} are not given")
        tile = _tile(tactic)
        padded = tile.padded_filters(conv)
        fragments = fragment_weights(grouped_weights(problem, conv, weights), tile, padded)
        return [None, fragments, *pack_operands(conv, constants, padded)]


def with_windows(template: str) -> str:
    """The template with its line `#include "windows.cuh"` replaced by that file's text."""
    if _WINDOWS_INCLUDE not in template:
        raise ValueError(f"the template has no line {_WINDOWS_INCLUDE.strip()}")
    return template.replace(_WINDOWS_INCLUDE, WINDOWS_SOURCE)


def _fits(conv: PooledConvolution, target: CudaTarget) -> bool:
    if not target.has_mma_f16 or conv.groups != 1:
        return False
    if conv.x_dtype is not DataType.FLOAT16 or conv.y_dtype is not DataType.FLOAT16:
        return False
    return bool(ranked(conv, target))


def _require(problem: Problem, target: Any) -> PooledConvolution:
    conv = pooled_convolution_of(problem, target)
    if conv is None or not _fits(conv, target):
        raise ValueError(f"cuda_conv_pool does not apply to {problem.text()}")
    return conv


def _tactic(name: str, tile: Tile) -> Tactic:
    values = (
        tile.pixels, tile.filters, tile.warps_m, tile.warps_n, tile.tile_k, tile.stages,
        tile.rows, tile.columns,
    )  # fmt: skip
    return Tactic(name, tuple(sorted(zip(_NAMES, values, strict=True))))


def _tile(tactic: Tactic) -> Tile:
    pixels, filters, warps_m, warps_n, k, stages, rows, columns = (
        int(tactic.values[name]) for name in _NAMES
    )
    return Tile(pixels, filters, warps_m, warps_n, 1, k, stages, 1, False, rows, columns)


FAMILY = CudaConvPool()
