"""Two-dimensional convolution as the kernel families see it: extents, strides, tiles of a row.

Shared by all convolution families. A family never looks at a problem's layouts by itself: what it
may rely on is what `convolution_of` has checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from builder_host.codegen.template import parameter_names
from builder_host.kernels.family import Problem
from builder_host.layouts import Layout
from builder_host.network.layers.pooled_convolution import is_quartered
from builder_host.targets.target import CpuTarget
from planformat.datatypes import DataType, TensorFormat

MAX_OPERANDS = 4
MAX_EDGE_TILES = 8
MAX_UNROLLED_COLUMNS = 16

Strides = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution of float32 tensors with a blocked output.

    Attributes:
        lanes: channels of one block of the output, which is one vector of the target.
        in_h, in_w, out_h, out_w: rows and columns; of the merged image after `merged_rows`.
        x_strides, y_strides, operand_strides: in elements, (n, channel or channel block, h, w).
        x_is_blocked: whether x has the output's format; else it is row-major.
        pool: edge of the windows of which y holds the maximum, side by side; out_h and out_w, of
            the map before, are then multiples of it: rows and columns outside windows are left out.
    """

    lanes: int
    batch: int
    channels: int
    filters: int
    groups: int
    in_h: int
    in_w: int
    out_h: int
    out_w: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    pad_top: int
    pad_left: int
    dilation_h: int
    dilation_w: int
    has_bias: bool
    x_is_blocked: bool
    x_strides: Strides
    y_strides: Strides
    operand_strides: tuple[Strides, ...]
    pool: int = 1

    @property
    def group_channels(self) -> int:
        """Input channels of one group."""
        return self.channels // self.groups

    @property
    def group_filters(self) -> int:
        """Output channels of one group."""
        return self.filters // self.groups

    @property
    def out_blocks(self) -> int:
        """Channel blocks of the whole output."""
        return -(-self.filters // self.lanes)

    @property
    def num_taps(self) -> int:
        """Kernel rows times kernel columns."""
        return self.kernel_h * self.kernel_w

    @property
    def flops(self) -> float:
        """Floating-point operations without regard to borders."""
        pixels = self.batch * self.out_h * self.out_w
        return 2.0 * pixels * self.filters * self.group_channels * self.num_taps

    @property
    def is_pointwise(self) -> bool:
        """Whether output pixel i needs input pixel i and nothing else."""
        return (
            self.num_taps == 1
            and (self.stride_h, self.stride_w) == (1, 1)
            and (self.pad_top, self.pad_left) == (0, 0)
            and (self.in_h, self.in_w) == (self.out_h, self.out_w)
        )

    def merged_rows(self, rows: int) -> Convolution:
        """A pointwise convolution with `rows` rows of the image taken as one long row.

        Args:
            rows: a divisor of out_h. The caller checks `can_merge_rows`.
        """

        def merge(strides: Strides) -> Strides:
            n, c, h, w = strides
            return (n, c, h * rows, w)

        return replace(
            self,
            in_h=self.in_h // rows,
            in_w=self.in_w * rows,
            out_h=self.out_h // rows,
            out_w=self.out_w * rows,
            x_strides=merge(self.x_strides),
            y_strides=merge(self.y_strides),
            operand_strides=tuple(merge(s) for s in self.operand_strides),
        )

    @property
    def can_merge_rows(self) -> bool:
        """Whether rows follow one another without gaps in x, y and all operands."""
        tensors = (self.x_strides, self.y_strides, *self.operand_strides)
        return self.is_pointwise and all(h == w * self.out_w for _, _, h, w in tensors)

    def parameters_of(self, template: str) -> dict[str, int | str]:
        """Values of those extents and strides that are parameters of a template."""
        names = ("N", "C", "H", "W")
        known = parameter_names(template)
        values: dict[str, int | str] = {
            "IN_H": self.in_h,
            "IN_W": self.in_w,
            "OUT_H": self.out_h,
            "OUT_W": self.out_w,
            "BATCH": self.batch,
            "KERNEL_H": self.kernel_h,
            "KERNEL_W": self.kernel_w,
            "STRIDE_H": self.stride_h,
            "STRIDE_W": self.stride_w,
            "PAD_TOP": self.pad_top,
            "PAD_LEFT": self.pad_left,
            "DILATION_H": self.dilation_h,
            "DILATION_W": self.dilation_w,
            "HAS_BIAS": int(self.has_bias),
            "POOL": self.pool,
            **{f"X_{a}": s for a, s in zip(names, self.x_strides, strict=True)},
            **{f"Y_{a}": s for a, s in zip(names, self.y_strides, strict=True)},
        }
        return {name: value for name, value in values.items() if name in known}


def convolution_of(problem: Problem, target: Any, *, pools: bool = False) -> Convolution | None:
    """The problem as a `Convolution`, or None when no blocked CPU kernel can compute it.

    Args:
        problem: any problem.
        target: any target.
        pools: whether the kernel can take the maximum of 2x2 windows (`pooled_convolution`).

    Needs a CPU target, float32, rank 4, constant weights and bias, y in the target's blocked
    format, x blocked alike or row-major, and epilogue operands as `_operand_strides` takes them.
    """
    params, pool = problem.params, 1
    if problem.kind == "pooled_convolution" and pools:
        params, pool = problem.params.convolution, 2
    elif problem.kind != "convolution":
        return None
    if not isinstance(target, CpuTarget):
        return None
    own, (y, *rest) = problem.num_own_inputs, problem.outputs
    if rest or own not in (2, 3) or not all(problem.is_constant[1:own]) or problem.is_constant[0]:
        return None
    layouts = (*problem.inputs, y)
    x, weights = problem.inputs[0], problem.inputs[1]
    if any(layout.dtype is not DataType.FLOAT32 for layout in layouts):
        return None
    if len(x.shape) != 4 or y.format is not target.blocked_format:
        return None
    if pool == 2 and not is_quartered(problem.params, x.shape, weights.shape):
        return None
    if x.format not in (target.blocked_format, TensorFormat.LINEAR):
        return None
    if any(problem.inputs[i].format is not TensorFormat.LINEAR for i in range(1, own)):
        return None
    operands: list[Strides] = []
    for layout, constant in zip(problem.inputs[own:], problem.is_constant[own:], strict=True):
        strides = _operand_strides(layout, constant, y)
        if strides is None:
            return None
        operands.append(strides)
    if len(operands) > MAX_OPERANDS or 0 in (*x.shape, *y.shape):
        return None
    return Convolution(
        lanes=target.vector_elems,
        batch=x.shape[0],
        channels=x.shape[1],
        filters=y.shape[1],
        groups=params.groups,
        in_h=x.shape[2],
        in_w=x.shape[3],
        out_h=y.shape[2] * pool,
        out_w=y.shape[3] * pool,
        kernel_h=weights.shape[2],
        kernel_w=weights.shape[3],
        stride_h=params.strides[0],
        stride_w=params.strides[1],
        pad_top=params.pads_begin[0],
        pad_left=params.pads_begin[1],
        dilation_h=params.dilations[0],
        dilation_w=params.dilations[1],
        has_bias=own == 3,
        x_is_blocked=x.format is target.blocked_format,
        x_strides=_four(x.strides),
        y_strides=_four(y.strides),
        operand_strides=tuple(operands),
        pool=pool,
    )


def _four(strides: Sequence[int]) -> Strides:
    n, c, h, w = strides
    return (n, c, h, w)


def is_channel_shape(shape: Sequence[int], filters: int) -> bool:
    """Whether a shape broadcasts over everything but the channels of a rank-4 tensor."""
    padded = (1,) * (4 - len(shape)) + tuple(shape)
    return (
        len(padded) == 4 and padded[0] == padded[2] == padded[3] == 1 and padded[1] in (1, filters)
    )


def _operand_strides(layout: Layout, constant: bool, y: Layout) -> Strides | None:
    """Strides of an epilogue operand, None when the kernels cannot read it.

    Taken are constants that vary with the channel only (packed as a padded vector) and tensors in
    the output's format whose n, h and w are the output's or 1.
    """
    block = y.format.channel_block
    if constant:
        return (0, block, 0, 0) if is_channel_shape(layout.shape, y.shape[1]) else None
    if layout.format is not y.format or layout.shape[1] != y.shape[1]:
        return None
    strides = []
    for axis, (extent, stride) in enumerate(zip(layout.shape, layout.strides, strict=True)):
        if extent != y.shape[axis] and extent != 1:
            return None
        strides.append(stride if axis == 1 or extent == y.shape[axis] else 0)
    return _four(strides)


def balanced(total: int, largest: int) -> list[int]:
    """Split `total` into as few parts as `largest` allows, sizes differing by at most one."""
    parts = -(-total // largest)
    size, longer = divmod(total, parts)
    return [size + 1] * longer + [size] * (parts - longer)


def divisors(number: int) -> list[int]:
    """All divisors, ascending."""
    return [d for d in range(1, number + 1) if number % d == 0]


def row_tiles(conv: Convolution, pixels: int) -> tuple[str, str]:
    """How an output row is cut into tiles, as the C macros ROW_TILES and KERNEL_COLUMNS.

    `INNER(column, pixels, count)` are tiles that stay inside the image for each tap;
    `EDGE(column, pixels)` leave the image and are compiled for their literal column;
    `CLIPPED(column, count)` are single columns that check each tap when they run: for kernels so
    wide, or borders so broad, that literal columns would make too much code.
    """

    def is_edge(column: int, width: int) -> bool:
        first = column * conv.stride_w - conv.pad_left
        last = (column + width - 1) * conv.stride_w - conv.pad_left
        return first < 0 or last + (conv.kernel_w - 1) * conv.dilation_w >= conv.in_w

    widths = balanced(conv.out_w, pixels)
    columns = [sum(widths[:i]) for i in range(len(widths))]
    edges = [is_edge(column, width) for column, width in zip(columns, widths, strict=True)]
    if sum(edges) > MAX_EDGE_TILES or conv.kernel_w > MAX_UNROLLED_COLUMNS:
        return _clipped_tiles(conv, pixels), ""
    calls: list[str] = []
    begin = 0  # first tile not yet written
    for i, edge in enumerate(edges):
        if edge:
            calls += inner_tiles(columns[begin], widths[begin:i])
            calls.append(f"EDGE({columns[i]}, {widths[i]})")
            begin = i + 1
    if begin < len(widths):
        calls += inner_tiles(columns[begin], widths[begin:])
    taps = " ".join(f"COLUMN({kw})" for kw in range(conv.kernel_w)) if any(edges) else ""
    return " ".join(calls), taps


def inner_tiles(column: int, widths: Sequence[int]) -> list[str]:
    """INNER calls for neighbouring tiles from `column` on, one call per run of equal widths."""
    runs: list[tuple[int, int, int]] = []
    for width in widths:
        if runs and runs[-1][1] == width:
            runs[-1] = (runs[-1][0], width, runs[-1][2] + 1)
        else:
            runs.append((column, width, 1))
        column += width
    return ["INNER({}, {}, {})".format(*run) for run in runs]


def _clipped_tiles(conv: Convolution, pixels: int) -> str:
    """CLIPPED columns at both borders, INNER tiles between them."""
    reach = (conv.kernel_w - 1) * conv.dilation_w
    begin = min(-(-max(conv.pad_left, 0) // conv.stride_w), conv.out_w)
    end = (conv.in_w - 1 - reach + conv.pad_left) // conv.stride_w + 1
    end = max(begin, min(end, conv.out_w))
    calls = [f"CLIPPED(0, {begin})"] if begin else []
    if end > begin:
        calls += inner_tiles(begin, balanced(end - begin, pixels))
    if end < conv.out_w:
        calls.append(f"CLIPPED({end}, {conv.out_w - end})")
    return " ".join(calls)
