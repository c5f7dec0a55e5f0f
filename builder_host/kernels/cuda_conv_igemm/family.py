"""Implicit-GEMM convolution on tensor cores: fp16 storage, float sums, sm_75 and later.

Any kernel, stride, padding, dilation and batch; groups of at least 8 channels and filters;
deconvolutions with small strides, which multiply the zeros that their strides put in.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder_host.codegen.template import fill
from builder_host.kernels.cuda_conv_igemm.tiles import (
    SUM_THREADS,
    Tile,
    candidates,
    estimate_us,
)
from builder_host.kernels.cuda_conv_igemm.weights import fragment_weights
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
from planformat.datatypes import DataType

_HERE = Path(__file__).parent
_LINEAR = (_HERE / "kernel.cu").read_text()
_PATCH = (_HERE / "kernel_patch.cu").read_text()
SUMS_SOURCE = (_HERE / "sums.cuh").read_text()
_SUMS_INCLUDE = '#include "sums.cuh"\n'
_MOST_TACTICS = 12
_MIN_GROUP = 8
_MAX_DECONVOLUTION_STRIDE = 2


class CudaConvIgemm:
    """Family `cuda_conv_igemm`.

    Tactic parameters: pixels, filters, k: tile of a block. rows, columns: rectangle of pixels that
    reads its input once for all taps, 0 for a run of pixels and one tap at a time. warps_m,
    warps_n, warps_k: its warps over these. stages: steps of k in shared memory. splits: blocks
    that share the k range of one tile, and `sum` how they add up.
    """

    name = "cuda_conv_igemm"
    device_kind = "cuda"
    template_hash = template_hash(
        _LINEAR,
        _PATCH,
        SUMS_SOURCE,
        CONVOLUTION_SOURCE,
        *((_HERE / name).read_text() for name in ("family.py", "tiles.py", "weights.py")),
    )

    def applies(self, problem: Problem, target: Any) -> bool:
        """Half x and y, tensor cores with `mma`, groups that fill fragments."""
        conv = convolution_of(problem, target)
        return conv is not None and _fits(conv, target)

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """The best tile's estimate."""
        conv = _require(problem, target)
        return min(estimate_us(tile, conv, target) for tile in candidates(conv, target, 1))

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Tiles by the estimate."""
        conv = _require(problem, target)
        return [tile_tactic(self.name, tile) for tile in candidates(conv, target, _MOST_TACTICS)]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch, or two where splits are added through a workspace."""
        conv = _require(problem, target)
        tile = tile_of_tactic(tactic)
        kind = "patch" if tile.is_patch else "igemm"
        symbol = symbol_for(
            f"conv_{kind}_f16_{tile.pixels}x{tile.filters}x{tile.tile_k}"
            f"_s{tile.stages}_sm{target.sm}",
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
            "TILE_K": tile.tile_k,
            "STAGES": tile.stages,
            "WARPS_M": tile.warps_m,
            "WARPS_N": tile.warps_n,
            "WARPS_K": tile.warps_k,
            "SPLITS": tile.splits,
            "USES_CLUSTER": int(tile.uses_cluster),
            "OPERAND_STAGES": stages,
            "OPERANDS_AT": tile.shared_bytes(conv),
            "INBOX_AT": tile.shared_bytes(conv) + operand_bytes,
        }
        if tile.is_patch:
            parameters |= {"TILE_H": tile.rows, "TILE_W": tile.columns}
        source = fill(with_sums(with_convolution(template)), parameters)
        launches = [
            GridLaunch(
                symbol,
                tile.grid(conv),
                (tile.threads, 1, 1),
                (tile.splits if tile.uses_cluster else 1, 1, 1),
                tile.shared_bytes(conv) + operand_bytes + tile.inbox_bytes,
                target.has_dependent_launch,
            )
        ]
        workspace = tile.workspace_bytes(conv)
        if workspace:
            runs = conv.pixels * conv.groups * tile.padded_filters(conv) // 4
            launches.append(
                GridLaunch(
                    f"{symbol}_sum",
                    (-(-runs // SUM_THREADS), 1, 1),
                    (SUM_THREADS, 1, 1),
                    is_dependent=target.has_dependent_launch,
                )
            )
        return Program(source, tuple(launches), workspace)

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """Weights as fragments, channel vectors as floats padded to whole tiles."""
        conv = _require(problem, target)
        weights = constants[1]
        if weights is None:
            raise ValueError(f"{self.name}: the weights of {problem.text()} are not given")
        tile = tile_of_tactic(tactic)
        padded = tile.padded_filters(conv)
        fragments = fragment_weights(grouped_weights(problem, conv, weights), tile, padded)
        return [None, fragments, *pack_operands(conv, constants, padded)]


def with_sums(template: str) -> str:
    """The template with its line `#include "sums.cuh"` replaced by that file's text."""
    if _SUMS_INCLUDE not in template:
        raise ValueError(f"the template has no line {_SUMS_INCLUDE.strip()}")
    return template.replace(_SUMS_INCLUDE, SUMS_SOURCE)


def _fits(conv: Convolution, target: CudaTarget) -> bool:
    if not target.has_mma_f16 or conv.x_dtype is not DataType.FLOAT16:
        return False
    if conv.y_dtype is not DataType.FLOAT16:
        return False
    if conv.groups > 1 and min(conv.group_channels, conv.group_filters) < _MIN_GROUP:
        return False
    if conv.is_transposed and max(conv.stride_h, conv.stride_w) > _MAX_DECONVOLUTION_STRIDE:
        return False
    return bool(candidates(conv, target, 1))


def _require(problem: Problem, target: Any) -> Convolution:
    conv = convolution_of(problem, target)
    if conv is None or not _fits(conv, target):
        raise ValueError(f"cuda_conv_igemm does not apply to {problem.text()}")
    return conv


def tile_tactic(name: str, tile: Tile) -> Tactic:
    """A tile as a tactic of a family."""
    return Tactic(
        name,
        (
            ("columns", tile.columns),
            ("filters", tile.filters),
            ("k", tile.tile_k),
            ("pixels", tile.pixels),
            ("rows", tile.rows),
            ("splits", tile.splits),
            ("stages", tile.stages),
            ("sum", _sum(tile)),
            ("warps_k", tile.warps_k),
            ("warps_m", tile.warps_m),
            ("warps_n", tile.warps_n),
        ),
    )


def _sum(tile: Tile) -> str:
    if tile.splits == 1:
        return "none"
    return "cluster" if tile.uses_cluster else "workspace"


def tile_of_tactic(tactic: Tactic) -> Tile:
    """The tile of a tactic."""
    values = tactic.values
    return Tile(
        pixels=int(values["pixels"]),
        filters=int(values["filters"]),
        warps_m=int(values["warps_m"]),
        warps_n=int(values["warps_n"]),
        warps_k=int(values["warps_k"]),
        tile_k=int(values["k"]),
        stages=int(values["stages"]),
        splits=int(values["splits"]),
        uses_cluster=values["sum"] == "cluster",
        rows=int(values["rows"]),
        columns=int(values["columns"]),
    )


FAMILY = CudaConvIgemm()
