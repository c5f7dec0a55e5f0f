"""Convolution by warp-group products of sm_90a: fp16 storage, float sums.

Any kernel, stride, padding, dilation and batch; one group, channels in multiples of eight, x in one
piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from builder_host.codegen.template import fill
from builder_host.kernels.cuda_conv_igemm.family import SUMS_SOURCE, with_sums
from builder_host.kernels.cuda_conv_igemm.weights import by_channel_chunk
from builder_host.kernels.cuda_conv_simt.epilogue import (
    CONVOLUTION_SOURCE,
    epilogue_parameters,
    grouped_weights,
    pack_operands,
    staged_operands,
    with_convolution,
)
from builder_host.kernels.cuda_conv_simt.geometry import Convolution, convolution_of
from builder_host.kernels.cuda_conv_wgmma.tiles import (
    STEP,
    Tile,
    candidates,
    estimate_us,
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
_LINEAR = (_HERE / "kernel.cu").read_text()
_PATCH = (_HERE / "kernel_patch.cu").read_text()
_COLUMNS = (_HERE / "columns.cuh").read_text()
_COLUMNS_INCLUDE = '#include "columns.cuh"\n'
_MOST_TACTICS = 12


class CudaConvWgmma:
    """Family `cuda_conv_wgmma`.

    Tactic parameters: pixels, filters: tile of a block. groups_k: warp groups that share the k
    values of a stage. stages: of 64 k values, in shared memory. splits: blocks of a cluster that
    share the stages of a tile. rows, columns: rectangle of pixels that reads its input once for all
    taps, from as many patches as lie in shared memory together; 0 for a run of pixels and one tap
    at a time.
    """

    name = "cuda_conv_wgmma"
    device_kind = "cuda"
    template_hash = template_hash(
        _LINEAR,
        _PATCH,
        _COLUMNS,
        SUMS_SOURCE,
        CONVOLUTION_SOURCE,
        *((_HERE / name).read_text() for name in ("family.py", "tiles.py")),
    )

    def applies(self, problem: Problem, target: Any) -> bool:
        """Half x in one piece with aligned channels, half y, sm_90a."""
        conv = convolution_of(problem, target)
        return conv is not None and _fits(conv, target)

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """The best tile's estimate."""
        conv = _require(problem, target)
        return estimate_us(candidates(conv, target, 1)[0], conv, target)

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Tiles by the estimate."""
        conv = _require(problem, target)
        return [
            Tactic(
                self.name,
                (
                    ("columns", tile.columns),
                    ("filters", tile.filters),
                    ("groups_k", tile.groups_k),
                    ("patches", tile.patches),
                    ("pixels", tile.pixels),
                    ("rows", tile.rows),
                    ("splits", tile.splits),
                    ("stages", tile.stages),
                ),
            )
            for tile in candidates(conv, target, _MOST_TACTICS)
        ]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch."""
        conv = _require(problem, target)
        tile = _tile(tactic)
        kind = "wgmma_patch" if tile.is_patch else "wgmma"
        symbol = symbol_for(
            f"conv_{kind}_f16_{tile.pixels}x{tile.filters}_s{tile.stages}_sm{target.sm}",
            self.template_hash, problem.text(), tactic.text,
        )  # fmt: skip
        template = _PATCH if tile.is_patch else _LINEAR
        stages, operand_bytes = staged_operands(conv, tile.filters)
        parameters: dict[str, int | str] = {
            **conv.parameters_of(template),
            **epilogue_parameters(conv),
            "SYMBOL": symbol,
            "TILE_PIXELS": tile.pixels,
            "TILE_FILTERS": tile.filters,
            "STAGES": tile.stages,
            "WARPS_M": 1,
            "WARPS_N": tile.filters // 16,
            "WARPS_K": tile.groups_k,
            "SPLITS": tile.splits,
            "USES_CLUSTER": int(tile.splits > 1),
            "OPERAND_STAGES": stages,
            "OPERANDS_AT": tile.shared_bytes(conv),
            "INBOX_AT": tile.shared_bytes(conv) + operand_bytes,
        }
        if tile.is_patch:
            parameters |= {"TILE_H": tile.rows, "TILE_W": tile.columns, "PATCHES": tile.patches}
        text = with_sums(with_convolution(template)).replace(_COLUMNS_INCLUDE, _COLUMNS)
        source = fill(text, parameters)
        launch = GridLaunch(
            symbol,
            tile.grid(conv),
            (tile.threads, 1, 1),
            (tile.splits, 1, 1),
            tile.shared_bytes(conv) + operand_bytes + tile.inbox_bytes,
            target.has_dependent_launch,
        )
        return Program(source, (launch,))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """Weights as rows of 64 k values with exchanged chunks, channel vectors as floats."""
        conv = _require(problem, target)
        weights = constants[1]
        if weights is None:
            raise ValueError(f"{self.name}: the weights of {problem.text()} are not given")
        tile = _tile(tactic)
        by_tap = grouped_weights(problem, conv, weights)
        if tile.is_patch:
            by_tap = by_channel_chunk(by_tap, STEP)
        rows = packed_rows(by_tap[0], tile.filters, tile.steps(conv))
        padded = tile.filter_tiles(conv) * tile.filters
        return [None, rows, *pack_operands(conv, constants, padded)]


def packed_rows(weights: Array, tile_filters: int, steps: int) -> Array:
    """Weights by filter tile, step and row; chunks of 16 bytes exchanged as the products want.

    Row `16 w + g + 8 h` of 64 holds filter `16 w + 2 g + h`: a thread then ends with two
    neighbouring filters.

    Args:
        weights: `[filters, taps, channels]`.
        tile_filters: filters of a block, a multiple of 64.
        steps: stages of a tile.

    Returns:
        Flat float16 array.
    """
    filters, taps, channels = weights.shape
    tiles = -(-filters // tile_filters)
    flat = np.zeros((tiles * tile_filters, steps * STEP), np.float16)
    flat[:filters, : taps * channels] = weights.reshape(filters, -1)
    # A filter is (tile, sixteen, g, h), a k value (step, chunk, element).
    split = flat.reshape(tiles, tile_filters // 16, 8, 2, steps, 8, 8)
    rows = split.transpose(0, 4, 1, 3, 2, 5, 6)  # tile, step, sixteen, h, g, chunk, element
    g, chunk = np.ogrid[:8, :8]
    exchanged = np.empty(rows.shape, np.float16)
    exchanged[:, :, :, :, g, chunk ^ g] = rows
    return exchanged.reshape(-1)


def _fits(conv: Convolution, target: CudaTarget) -> bool:
    return (
        target.has_wgmma
        and conv.x_dtype is conv.y_dtype is DataType.FLOAT16
        and not conv.is_transposed
        and conv.groups == 1
        and conv.x_vector == 8
        and not conv.x_is_view
        and bool(candidates(conv, target, 1))
    )


def _require(problem: Problem, target: Any) -> Convolution:
    conv = convolution_of(problem, target)
    if conv is None or not _fits(conv, target):
        raise ValueError(f"cuda_conv_wgmma does not apply to {problem.text()}")
    return conv


def _tile(tactic: Tactic) -> Tile:
    names = ("pixels", "filters", "groups_k", "stages", "splits", "rows", "columns", "patches")
    return Tile(*(int(tactic.values[name]) for name in names))


FAMILY = CudaConvWgmma()
