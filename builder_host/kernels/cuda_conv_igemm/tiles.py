"""Tiles of the tensor-core convolution: which exist, what they cost, which are worth measuring."""

from __future__ import annotations

from dataclasses import dataclass

from builder_host.cuda_target import CudaTarget
from builder_host.kernels.cuda_conv_simt.geometry import Convolution

MAX_GRID = 65535  # blocks in y and z
SUM_THREADS = 128

# (pixels, filters, warps over pixels, warps over filters, warps over k)
_SHAPES = (
    (16, 32, 1, 1, 4),
    (16, 64, 1, 2, 4),
    (16, 128, 1, 4, 2),
    (32, 32, 2, 1, 4),
    (32, 64, 2, 2, 2),
    (32, 64, 1, 2, 4),
    (32, 128, 1, 4, 2),
    (64, 32, 2, 1, 4),
    (64, 64, 2, 2, 2),
    (64, 64, 2, 2, 1),
    (64, 128, 2, 4, 1),
    (128, 64, 4, 2, 1),
    (128, 128, 2, 4, 1),
)
_TILE_K = (64, 32)
_SPLITS = (1, 2, 4, 8)

# Clocks, from the prototype chain on an H200 (start and drain of a kernel, one cluster reduction)
# and from the instruction rates of mma.sync; they rank tactics, measurements decide.
_BASE_CLOCKS = 1500.0
_CLUSTER_CLOCKS = 1100.0
_WARP_SUM_CLOCKS = 150.0
_KERNEL_CLOCKS = 1800.0
_BYTES_PER_CLOCK = 40.0  # L2 to one SM
_STEP_CLOCKS = 45.0  # barrier and addresses of one pass through the k loop
_WARP_STEP_CLOCKS = 40.0  # latency of fragments and products that one warp alone cannot hide


@dataclass(frozen=True, slots=True)
class Tile:
    """Parameters of one kernel; `uses_cluster` says how splits are added."""

    pixels: int
    filters: int
    warps_m: int
    warps_n: int
    warps_k: int
    tile_k: int
    stages: int
    splits: int
    uses_cluster: bool

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 32 * self.warps_m * self.warps_n * self.warps_k

    @property
    def shared_bytes(self) -> int:
        """Ring of stages, or the partial sums that take its place."""
        return max(self.stages * self._stage_bytes, self._sum_bytes)

    @property
    def _stage_bytes(self) -> int:
        return self.pixels * (self.tile_k + 8) * 2 + self.filters * self.tile_k * 2

    @property
    def _sum_bytes(self) -> int:
        if self.warps_k == 1 and not (self.splits > 1 and self.uses_cluster):
            return 0
        return self.warps_k * self.pixels * (self.filters + 4) * 4

    def steps(self, conv: Convolution) -> int:
        """Passes through the k loop when one block takes all of them."""
        return -(-conv.num_taps * -(-conv.group_channels // 8) // (self.tile_k // 8))

    def filter_tiles(self, conv: Convolution) -> int:
        """Tiles over the filters of one group."""
        return -(-conv.group_filters // self.filters)

    def padded_filters(self, conv: Convolution) -> int:
        """Filters of one group with those that fill its last tile."""
        return self.filter_tiles(conv) * self.filters

    def grid(self, conv: Convolution) -> tuple[int, int, int]:
        """Splits, filter tiles of all groups, pixel tiles."""
        tiles = -(-conv.pixels // self.pixels)
        return (self.splits, self.filter_tiles(conv) * conv.groups, tiles)

    def workspace_bytes(self, conv: Convolution) -> int:
        """Partial sums in memory."""
        if self.splits == 1 or self.uses_cluster:
            return 0
        return 4 * self.splits * conv.pixels * conv.groups * self.padded_filters(conv)


def estimate_us(tile: Tile, conv: Convolution, target: CudaTarget) -> float:
    """Time by waves over the SMs: the larger of copies and products, and fixed parts."""
    clocks_per_us = (target.core_clock_hz or 1_500_000_000) / 1e6
    products_per_clock = 1024.0 if target.has_mma_k16 else 512.0
    splits, y, z = tile.grid(conv)
    blocks = splits * y * z
    per_sm = -(-blocks // target.num_sms)
    steps = -(-tile.steps(conv) // splits)
    resident = max(1, min(per_sm, target.shared_per_sm_bytes // (tile.shared_bytes + 1024)))
    warps = tile.threads // 32 * resident
    products = tile.pixels * tile.filters * tile.tile_k / products_per_clock
    # Less than two warps per scheduler leave the latency of fragments and products open.
    exposed = _WARP_STEP_CLOCKS * (tile.tile_k // 16) / tile.warps_k
    copies = (tile.pixels + tile.filters) * tile.tile_k * 2 / _BYTES_PER_CLOCK
    step = max(products * max(1.0, 8.0 / warps), copies, exposed / resident) + _STEP_CLOCKS
    clocks = _BASE_CLOCKS + per_sm * (steps * step + tile.pixels * tile.filters / 64.0)
    if tile.warps_k > 1:
        clocks += _WARP_SUM_CLOCKS
    if splits > 1:
        clocks += _CLUSTER_CLOCKS if tile.uses_cluster else _KERNEL_CLOCKS
    moved_us = (conv.moved_bytes + 2 * tile.workspace_bytes(conv)) / (
        1e3 * max(target.memory_gbps, 1.0) * (2.0 if conv.moved_bytes < target.l2_bytes else 1.0)
    )
    return max(clocks / clocks_per_us, moved_us)


def candidates(conv: Convolution, target: CudaTarget, most: int) -> list[Tile]:
    """Tiles that fit the target and the problem, the expected best first."""
    found: dict[tuple[int, ...], tuple[float, Tile]] = {}
    for pixels, filters, warps_m, warps_n, warps_k in _SHAPES:
        for tile_k in _TILE_K:
            if tile_k // 16 % warps_k:
                continue
            for splits in _SPLITS:
                tile = _fitted(
                    Tile(
                        pixels, filters, warps_m, warps_n, warps_k, tile_k, 2, splits,
                        splits > 1 and target.has_clusters,
                    ),
                    conv, target,
                )  # fmt: skip
                if tile is None:
                    continue
                cost = estimate_us(tile, conv, target)
                key = (pixels, filters, warps_m, warps_k, splits)
                if key not in found or cost < found[key][0]:
                    found[key] = (cost, tile)
    ranked = sorted(found.values(), key=lambda item: item[0])
    return [tile for _, tile in ranked[:most]]


def _fitted(tile: Tile, conv: Convolution, target: CudaTarget) -> Tile | None:
    """The tile with as many stages as are useful, None when it does not suit the problem."""
    steps = tile.steps(conv)
    if tile.splits > 1:
        share = -(-steps // tile.splits)
        if share < 2 or (tile.splits - 1) * share >= steps:
            return None
    wanted = -(-steps // tile.splits)
    # Half of an SM: blocks of the next kernel can come while this one ends.
    room = min(target.shared_per_block_bytes, target.shared_per_sm_bytes // 2 - 1024)
    ring = min(wanted, 8, room // tile._stage_bytes)
    best = Tile(
        tile.pixels, tile.filters, tile.warps_m, tile.warps_n, tile.warps_k, tile.tile_k,
        max(ring, 1), tile.splits, tile.uses_cluster,
    )  # fmt: skip
    _, y, z = best.grid(conv)
    if ring < min(wanted, 2) or best.shared_bytes > target.shared_per_block_bytes:
        return None
    if max(y, z) > MAX_GRID or best.workspace_bytes(conv) > 64 << 20:
        return None
    return best
