"""Tiles of the tensor-core convolution: which exist, what they cost, which are worth measuring."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

from builder_host.kernels.cuda_conv_simt.geometry import Convolution
from builder_host.kernels.cuda_loop_nest.cost import clocks_us, stream_us
from builder_host.targets.cuda import CudaTarget

MAX_GRID = 65535  # blocks in y and z
SUM_THREADS = 128
_OPERAND_BYTES = 12  # of shared memory per filter: three channel vectors

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
    (64, 128, 1, 4, 1),
    (128, 64, 4, 2, 1),
    (128, 64, 2, 2, 1),
    (128, 128, 2, 4, 1),
    (128, 128, 2, 2, 1),
)
_TILE_K = (64, 32, 16)
_SPLITS = (1, 2, 4, 8)
_PATCH_COLUMNS = (4, 7, 8, 14, 16, 28)
_MAX_PATCH_STRIDE = 2
_MAX_UNROLLED = 80  # k16 steps in the text of the patch kernel
_MAX_WORKSPACE_BYTES = 64 << 20

# Clocks, fitted to 290 measurements of ResNet-50's layers on an H200 (mean error 12 %); they rank
# tactics, measurements decide.
_BASE_CLOCKS = 2800.0
SM_BYTES_PER_CLOCK = 41.0  # L2 to one SM
_CHIP_BYTES_PER_CLOCK = 29.0  # L2 to all SMs together, per SM
_STEP_CLOCKS = 44.0  # barrier and addresses of one pass through the k loop
OUTPUT_CLOCKS = 0.144  # per output and full operand of a block
_WARP_SUM_CLOCKS = 70.0
_CLUSTER_CLOCKS = (600.0, 100.0)  # and per block of the cluster
_CLUSTER_SMS = {2: 1.0, 4: 0.88, 8: 0.85}  # clusters stay within a GPC of up to 18 SMs
_KERNEL_CLOCKS = 1800.0
_OVERLAP = 0.3  # share of the shorter of copies and products that is not hidden


@dataclass(frozen=True, slots=True)
class Tile:
    """Parameters of one kernel.

    Attributes:
        rows, columns: of a rectangle of pixels whose input patch is read once for all taps; 0: the
            pixels are a run of the flattened output, and taps are read one after another.
        uses_cluster: how the sums of splits are added.
    """

    pixels: int
    filters: int
    warps_m: int
    warps_n: int
    warps_k: int
    tile_k: int
    stages: int
    splits: int
    uses_cluster: bool
    rows: int = 0
    columns: int = 0

    @property
    def is_patch(self) -> bool:
        """Whether a stage holds the input of all taps."""
        return self.rows > 0

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 32 * self.warps_m * self.warps_n * self.warps_k

    def shared_bytes(self, conv: Convolution) -> int:
        """Ring of stages, or the partial sums that take its place."""
        return max(self.stages * self.stage_bytes(conv), self._sum_bytes)

    def stage_bytes(self, conv: Convolution) -> int:
        """Pixels with 16 bytes of padding each, and weights."""
        taps = conv.num_taps if self.is_patch else 1
        pixels = self.pixels
        if self.is_patch:
            height = (self.rows - 1) * conv.stride_h + (conv.kernel_h - 1) * conv.dilation_h + 1
            width = (self.columns - 1) * conv.stride_w + (conv.kernel_w - 1) * conv.dilation_w + 1
            pixels = height * width
        image = pixels * (self.tile_k + 8) * 2
        if self.is_patch:
            image = -(-image // 128) * 128
        return image + taps * self.filters * self.tile_k * 2

    @property
    def _sum_bytes(self) -> int:
        if self.warps_k == 1:
            return 0
        return self.warps_k * self.pixels * (self.filters + 4) * 4

    @property
    def inbox_bytes(self) -> int:
        """Shared memory into which the blocks of a cluster send the sums that this one finishes."""
        if not self.uses_cluster:
            return 0
        runs = self.pixels * self.filters // 4
        return 16 * self.threads * self.splits * -(-runs // (self.threads * self.splits))

    def steps(self, conv: Convolution) -> int:
        """Passes through the k loop when one block takes all of them."""
        if self.is_patch:
            return -(-conv.group_channels // self.tile_k)
        return -(-conv.num_taps * -(-conv.group_channels // 8) // (self.tile_k // 8))

    def filter_tiles(self, conv: Convolution) -> int:
        """Tiles over the filters of one group."""
        return -(-conv.group_filters // self.filters)

    def padded_filters(self, conv: Convolution) -> int:
        """Filters of one group with those that fill its last tile."""
        return self.filter_tiles(conv) * self.filters

    def grid(self, conv: Convolution) -> tuple[int, int, int]:
        """Splits, filter tiles of all groups, pixel tiles."""
        if self.is_patch:
            tiles = conv.batch * -(-conv.out_h // self.rows) * -(-conv.out_w // self.columns)
        else:
            tiles = -(-conv.pixels // self.pixels)
        return (self.splits, self.filter_tiles(conv) * conv.groups, tiles)

    def workspace_bytes(self, conv: Convolution) -> int:
        """Partial sums in memory."""
        if self.splits == 1 or self.uses_cluster:
            return 0
        return 4 * self.splits * conv.pixels * conv.groups * self.padded_filters(conv)


def estimate_us(tile: Tile, conv: Convolution, target: CudaTarget) -> float:
    """Time by waves over the SMs: the larger of copies and products, and fixed parts."""
    splits, y, z = tile.grid(conv)
    blocks = splits * y * z
    num_sms = target.num_sms
    if tile.uses_cluster:
        num_sms = max(splits, int(num_sms * _CLUSTER_SMS[splits]))
    per_sm = -(-blocks // num_sms)
    steps = -(-tile.steps(conv) // splits)
    moved = steps * tile.stage_bytes(conv)
    copies = max(
        moved * per_sm / SM_BYTES_PER_CLOCK,
        moved * blocks / (_CHIP_BYTES_PER_CLOCK * target.num_sms),
    )
    terms = steps * tile.tile_k * (conv.num_taps if tile.is_patch else 1)
    tiles_m, tiles_n = tile.pixels // tile.warps_m // 16, tile.filters // tile.warps_n // 8
    # Fragments come through shared memory at 128 bytes a clock.
    share = max(1.0, (4 * tiles_m + 2 * tiles_n) / (2 * tiles_m * tiles_n))
    products = per_sm * tile.pixels * tile.filters * terms / _products_per_clock(target) * share
    clocks = _BASE_CLOCKS + max(copies, products) + _OVERLAP * min(copies, products)
    resident = max(1, min(per_sm, target.shared_per_sm_bytes // (tile.shared_bytes(conv) + 1024)))
    clocks += _STEP_CLOCKS * steps * per_sm / resident
    full = 1 + sum(not operand.is_channel for operand in conv.operands)
    clocks += OUTPUT_CLOCKS * per_sm * tile.pixels * tile.filters * full
    if tile.warps_k > 1:
        clocks += _WARP_SUM_CLOCKS
    if splits > 1:
        fixed, each = _CLUSTER_CLOCKS
        clocks += fixed + each * splits if tile.uses_cluster else _KERNEL_CLOCKS
    memory_us = stream_us(conv.moved_bytes + 2 * tile.workspace_bytes(conv), target)
    if conv.moved_bytes < target.l2_bytes:
        memory_us /= 2.0
    return max(clocks_us(clocks, target), memory_us)


def candidates(
    conv: Convolution, target: CudaTarget, most: int, *, patches: bool = True
) -> list[Tile]:
    """Tiles that fit the target and the problem, the expected best first.

    Args:
        conv: the convolution.
        target: the GPU.
        most: tiles to return.
        patches: whether there is a kernel that reads its input patch once for all taps.
    """
    return list(_ranked(conv, target, patches)[:most])


@functools.lru_cache(maxsize=512)  # a build asks often: applies, estimate, tactics, source
def _ranked(conv: Convolution, target: CudaTarget, patches: bool) -> tuple[Tile, ...]:
    found: dict[tuple[int | bool, ...], tuple[float, Tile]] = {}
    for pixels, filters, warps_m, warps_n, warps_k in _SHAPES:
        for tile_k in _TILE_K:
            if tile_k // 16 % warps_k:
                continue
            for splits in _SPLITS:
                linear = Tile(
                    pixels, filters, warps_m, warps_n, warps_k, tile_k, 2, splits,
                    splits > 1 and target.has_clusters,
                )  # fmt: skip
                for shape in (linear, *(_patches(linear, conv) if patches else ())):
                    tile = _fitted(shape, conv, target)
                    if tile is None:
                        continue
                    cost = estimate_us(tile, conv, target)
                    key = (tile.is_patch, pixels, filters, warps_m, warps_k, splits)
                    if key not in found or cost < found[key][0]:
                        found[key] = (cost, tile)
    ranked = sorted(found.values(), key=lambda item: item[0])
    return tuple(tile for _, tile in ranked)


def _products_per_clock(target: CudaTarget) -> float:
    """Fp16 multiply-adds of one SM through mma.sync with float sums."""
    if target.compute_capability >= (9, 0):
        return 1350.0
    return 1024.0 if target.compute_capability == (8, 0) else 512.0


def _patches(tile: Tile, conv: Convolution) -> list[Tile]:
    """The same tile as rectangles of pixels, where the kernel's taps share input."""
    if conv.is_transposed or conv.num_taps == 1 or conv.x_vector < 8 or conv.x_is_view:
        return []
    if max(conv.stride_h, conv.stride_w) > _MAX_PATCH_STRIDE:
        return []
    if conv.num_taps * tile.tile_k // 16 // tile.warps_k > _MAX_UNROLLED:
        return []
    found = []
    for columns in _PATCH_COLUMNS:
        rows = min(tile.pixels // columns, conv.out_h)
        if rows >= 1 and columns <= max(conv.out_w, 4):
            # As few rows as give the same number of tiles.
            rows = -(-conv.out_h // -(-conv.out_h // rows))
            found.append(replace(tile, rows=rows, columns=columns))
    return found


def _fitted(tile: Tile, conv: Convolution, target: CudaTarget) -> Tile | None:
    """The tile with as many stages as are useful, None when it does not suit the problem."""
    steps = tile.steps(conv)
    wanted = -(-steps // tile.splits)
    if tile.splits > 1 and (tile.splits - 1) * wanted >= steps:
        return None
    if tile.splits > 1 and wanted < 2 and not tile.is_patch:
        return None
    # Half of an SM: blocks of the next kernel can come while this one ends.
    room = min(target.shared_per_block_bytes, target.shared_per_sm_bytes // 2 - 1024)
    room -= _OPERAND_BYTES * tile.filters + tile.inbox_bytes
    ring = min(wanted, 8, room // tile.stage_bytes(conv))
    if ring < min(wanted, 2):
        return None
    best = replace(tile, stages=ring)
    _, y, z = best.grid(conv)
    others = _OPERAND_BYTES * tile.filters + tile.inbox_bytes
    if best.shared_bytes(conv) + others > target.shared_per_block_bytes or max(y, z) > MAX_GRID:
        return None
    return None if best.workspace_bytes(conv) > _MAX_WORKSPACE_BYTES else best
