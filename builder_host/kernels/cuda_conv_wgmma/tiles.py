"""Tiles of the warp-group convolution: which exist, what they cost, which are worth measuring."""

from __future__ import annotations

from dataclasses import dataclass, replace

from builder_host.kernels.cuda_conv_simt.geometry import Convolution
from builder_host.kernels.cuda_loop_nest.cost import clocks_us, stream_us
from builder_host.targets.cuda import CudaTarget

MAX_GRID = 65535  # blocks in y and z
STEP = 64  # k values of a stage

INSTRUCTION_PIXELS = (16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256)
_RUN_PIXELS = (16, 24, 32, 56, 64, 112, 128, 192, 256)
_OPERAND_BYTES = 12  # of shared memory per filter: three channel vectors
_LEAST_SHARE_USED = 0.7  # of a rectangle's columns of the product
_MAX_STAGES = 12
_FILTERS = (64, 128)
_WARP_GROUPS_K = (1, 2, 4)
_SPLITS = (1, 2, 4, 8)
_MAX_SUMS_OF_THREAD = 128  # registers

# Clocks, fitted to 1500 measurements of the layers of ResNet-50 and VGG-16 on an H200 (mean error
# 12 %, when sums of a cluster were still fetched by the block that finishes them); they rank
# tactics, measurements decide.
_BASE_CLOCKS = 1800.0
_SM_BYTES_PER_CLOCK = 64.0  # L2 to one SM
_CHIP_BYTES_PER_CLOCK = 38.0  # L2 to all SMs together, per SM
_STEP_CLOCKS = (41.0, 88.0)  # of a step, when all lie in shared memory, and in a ring
_GATHER_CLOCKS = 50.0  # of a thread, for 16 bytes of a pixel that it fetches
_OUTPUT_CLOCKS = 0.264
_GROUP_SUM_CLOCKS = 177.0
_CLUSTER_CLOCKS = (1370.0, 258.0)
_CLUSTER_SMS = {2: 1.0, 4: 0.88, 8: 0.9}
_PRODUCTS_PER_CLOCK = 1770.0
_OVERLAP = 0.68  # share of the shorter of copies and products that is not hidden


@dataclass(frozen=True, slots=True)
class Tile:
    """Parameters of one kernel.

    Attributes:
        pixels, filters: columns and rows of a block's product.
        groups_k: warp groups that share the k values of a stage.
        stages: of the ring.
        splits: blocks of a cluster that share the k range.
        rows, columns: of a rectangle of pixels whose input patch is read once for all taps; 0: the
            pixels are a run of the flattened output.
        patches: in shared memory together.
    """

    pixels: int
    filters: int
    groups_k: int
    stages: int
    splits: int
    rows: int = 0
    columns: int = 0
    patches: int = 0

    @property
    def is_patch(self) -> bool:
        """Whether taps share input."""
        return self.rows > 0

    @property
    def threads(self) -> int:
        """Threads of a block: one warp group per 64 filters and share of k."""
        return 128 * (self.filters // 64) * self.groups_k

    @property
    def stage_bytes(self) -> int:
        """Weights of 64 k values, and the pixels' unless they lie in patches."""
        return 2 * STEP * (self.filters + (0 if self.is_patch else self.pixels))

    def patch_bytes(self, conv: Convolution) -> int:
        """One patch of 64 channels with the rows that products read behind it."""
        if not self.is_patch:
            return 0
        width = self.columns + conv.kernel_w - 1
        rows = self.pixels + (conv.kernel_h - 1) * width + conv.kernel_w - 1
        return 2 * STEP * (-(-rows // 8) * 8)

    def shared_bytes(self, conv: Convolution) -> int:
        """Ring of stages and patches, or the partial sums that take their place."""
        sums = 0
        if self.groups_k > 1:
            sums = self.groups_k * self.pixels * (self.filters + 4) * 4
        return max(self.stages * self.stage_bytes + self.patches * self.patch_bytes(conv), sums)

    @property
    def inbox_bytes(self) -> int:
        """Shared memory into which the blocks of a cluster send the sums that this one finishes."""
        if self.splits == 1:
            return 0
        runs = self.pixels * self.filters // 4
        return 16 * self.threads * self.splits * -(-runs // (self.threads * self.splits))

    def moved_bytes(self, conv: Convolution, steps: int) -> float:
        """What a block fetches for a number of steps."""
        patches = steps / conv.num_taps * self.patch_bytes(conv)
        return steps * self.stage_bytes + patches

    def steps(self, conv: Convolution) -> int:
        """Stages of a tile when one block takes all of them."""
        if self.is_patch:
            return conv.num_taps * -(-conv.channels // STEP)
        return -(-conv.num_taps * conv.channels // STEP)

    def steps_of_split(self, conv: Convolution) -> int:
        """The most that one of the splits takes."""
        unit = conv.num_taps if self.is_patch else 1
        return -(-(self.steps(conv) // unit) // self.splits) * unit

    def is_resident(self, conv: Convolution) -> bool:
        """Whether all that a block reads lies in shared memory at once."""
        steps = self.steps_of_split(conv)
        return self.stages >= steps and self.patches * conv.num_taps >= steps * self.is_patch

    def filter_tiles(self, conv: Convolution) -> int:
        """Tiles over the filters."""
        return -(-conv.filters // self.filters)

    def grid(self, conv: Convolution) -> tuple[int, int, int]:
        """Splits, filter tiles, pixel tiles."""
        if self.is_patch:
            tiles = conv.batch * -(-conv.out_h // self.rows) * -(-conv.out_w // self.columns)
        else:
            tiles = -(-conv.pixels // self.pixels)
        return (self.splits, self.filter_tiles(conv), tiles)


def estimate_us(tile: Tile, conv: Convolution, target: CudaTarget) -> float:
    """Time by waves over the SMs: the larger of copies and products, and fixed parts."""
    splits, y, z = tile.grid(conv)
    blocks = splits * y * z
    num_sms = target.num_sms
    if splits > 1:
        num_sms = max(splits, int(num_sms * _CLUSTER_SMS[splits]))
    per_sm = -(-blocks // num_sms)
    steps = tile.steps_of_split(conv)
    moved = tile.moved_bytes(conv, steps)
    copies = max(
        moved * per_sm / _SM_BYTES_PER_CLOCK,
        moved * blocks / (_CHIP_BYTES_PER_CLOCK * target.num_sms),
    )
    products = per_sm * tile.pixels * tile.filters * steps * STEP / _PRODUCTS_PER_CLOCK
    clocks = _BASE_CLOCKS + max(copies, products) + _OVERLAP * min(copies, products)
    resident = max(1, min(per_sm, target.shared_per_sm_bytes // (tile.shared_bytes(conv) + 1024)))
    clocks += _STEP_CLOCKS[not tile.is_resident(conv)] * steps * per_sm / resident
    if not tile.is_patch:
        clocks += _GATHER_CLOCKS * tile.pixels * steps * per_sm / tile.threads
    full = 1 + sum(not operand.is_channel for operand in conv.operands)
    clocks += _OUTPUT_CLOCKS * per_sm * tile.pixels * tile.filters * full
    if tile.groups_k > 1:
        clocks += _GROUP_SUM_CLOCKS
    if splits > 1:
        fixed, each = _CLUSTER_CLOCKS
        clocks += fixed + each * splits
    memory_us = stream_us(conv.moved_bytes, target)
    if conv.moved_bytes < target.l2_bytes:
        memory_us /= 2.0
    return max(clocks_us(clocks, target), memory_us)


def candidates(conv: Convolution, target: CudaTarget, most: int) -> list[Tile]:
    """Tiles that fit the target and the problem, the expected best first."""
    found: dict[tuple[bool, int, int, int, int], tuple[float, int, Tile]] = {}
    for order, wanted in enumerate(shapes(conv)):
        tile = fitted(wanted, conv, target)
        if tile is None:
            continue
        key = (tile.is_patch, tile.pixels, tile.filters, tile.groups_k, tile.splits)
        cost = estimate_us(tile, conv, target)
        if key not in found or cost < found[key][0]:
            found[key] = (cost, order, tile)
    return [tile for _, _, tile in sorted(found.values())[:most]]


def shapes(conv: Convolution) -> list[Tile]:
    """All tiles that exist for a problem, without regard to what fits."""
    return [
        replace(shape, filters=filters, groups_k=groups_k, splits=splits)
        for shape in (*_runs(conv), *_rectangles(conv))
        for filters in _FILTERS
        if filters == _FILTERS[0] or conv.filters > _FILTERS[0]
        for groups_k in _WARP_GROUPS_K
        for splits in _SPLITS
    ]


def _runs(conv: Convolution) -> list[Tile]:
    """Runs of pixels, one tap at a time."""
    most = 2 * max(conv.pixels, 16)
    return [Tile(pixels, 64, 1, 3, 1) for pixels in _RUN_PIXELS if pixels < most]


def _rectangles(conv: Convolution) -> list[Tile]:
    """Rectangles of pixels whose taps share input, where strides and dilations allow it."""
    if conv.num_taps == 1 or (conv.stride_h, conv.stride_w) != (1, 1):
        return []
    if (conv.dilation_h, conv.dilation_w) != (1, 1):
        return []
    found: dict[tuple[int, int], Tile] = {}
    for share in (1, 2, 3, 4, 8):
        columns = -(-conv.out_w // share)
        width = columns + conv.kernel_w - 1
        for pixels in INSTRUCTION_PIXELS:
            rows = min((pixels - columns) // width + 1, conv.out_h)
            if columns < 4 or rows < 1 or (rows - 1) * width + columns > pixels:
                continue
            rows = -(-conv.out_h // -(-conv.out_h // rows))  # as few as give as many tiles
            used = (rows - 1) * width + columns
            if next(p for p in INSTRUCTION_PIXELS if p >= used) < pixels:
                continue
            if rows * columns >= _LEAST_SHARE_USED * pixels:
                found[rows, columns] = Tile(pixels, 64, 1, 3, 1, rows, columns, 1)
    return list(found.values())


def fitted(tile: Tile, conv: Convolution, target: CudaTarget) -> Tile | None:
    """The tile with as many stages as are useful, None when it does not suit the problem."""
    if tile.pixels // 2 > _MAX_SUMS_OF_THREAD or tile.threads > 512:
        return None
    wanted = tile.steps_of_split(conv)
    if tile.splits > 1 and (tile.splits - 1) * wanted >= tile.steps(conv):
        return None
    # Half of an SM: blocks of the next kernel can come while this one ends.
    room = min(target.shared_per_block_bytes, target.shared_per_sm_bytes // 2 - 1024)
    others = _OPERAND_BYTES * tile.filters + tile.inbox_bytes
    room -= others
    most = _MAX_STAGES
    if tile.is_patch:
        chunks = wanted // conv.num_taps
        patches = min(chunks, 2)
        if patches < chunks:
            # Two stages are not filled, and a patch comes within its chunk.
            most = min(most, conv.num_taps + 1)
        tile = replace(tile, patches=patches)
        room -= patches * tile.patch_bytes(conv)
    stages = min(wanted, most, max(room, 0) // tile.stage_bytes)
    if stages < min(wanted, 3):
        return None
    best = replace(tile, stages=stages)
    _, y, z = best.grid(conv)
    if best.shared_bytes(conv) + others > target.shared_per_block_bytes or max(y, z) > MAX_GRID:
        return None
    return best
