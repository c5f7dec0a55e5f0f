"""Charts of one profile: time line, constants by size, arena over time, roofs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from builder_host.inspection.operations import OperationRow
from builder_host.inspection.roofs import Roofs
from builder_host.inspection.svg import circle, label, line, picture, rect, ticks
from planformat.details import ArenaDetails
from planformat.plan import Profile

_WIDTH = 1000.0


def time_line(rows: Sequence[OperationRow]) -> str:
    """Operations side by side, as wide as they take time."""
    bars = [
        (row.time_us or 0.0, row.details.name, f"{row.time_us or 0:.2f} µs", row.tactic)
        for row in rows
    ]
    total = sum(bar[0] for bar in bars)
    if total <= 0:
        return "<p>No step has a time.</p>"
    return _side_by_side(bars, f"{total:.1f} µs in all", "time of each operation")


def constants_line(rows: Sequence[OperationRow], sizes: Sequence[int]) -> str:
    """Constants of the operations, of these bytes, side by side, as wide as they are large."""
    bars = [
        (
            size / 1024,
            row.details.name,
            f"{size:,} bytes, {row.weight_bytes:,} unpacked",
            row.tactic,
        )
        for row, size in zip(rows, sizes, strict=True)
        if size
    ]
    if not bars:
        return "<p>No operation has constants.</p>"
    total = sum(bar[0] for bar in bars)
    return _side_by_side(bars, f"{total:,.0f} KiB in all", "constants of each operation")


def _side_by_side(
    bars: Sequence[tuple[float, str, str, str]], total_text: str, description: str
) -> str:
    """Bars of a value, a name, the value as text, and a further line for the tooltip."""
    total = sum(value for value, *_ in bars)
    parts, at = [], 0.0
    for index, (value, name, text, more) in enumerate(bars):
        share = value / total
        tip = f"{name}\n{text}, {share:.1%}\n{more}"
        parts.append(rect(at, 4, share * _WIDTH, 44, f"bar b{index % 2}", tip))
        if share > 0.06:
            parts.append(label(at + 4, 30, name[: int(share * 130)], "inside"))
        at += share * _WIDTH
    for mark in (m for m in ticks(total, 8) if m < 0.88 * total):
        x = mark / total * _WIDTH
        anchor = "middle" if mark else "start"
        parts += [line(x, 48, x, 53, "axis"), label(x, 65, f"{mark:g}", "label", anchor)]
    parts.append(label(_WIDTH, 65, total_text, "label", "end"))
    return picture(_WIDTH, 72, parts, description)


def arena_chart(profile: Profile, arena: Sequence[ArenaDetails], num_operations: int) -> str:
    """Buffers as boxes: across, the operations during which they live; up, their offsets."""
    if not arena:
        return "<p>The profile needs no arena.</p>"
    left, height, top = 70.0, 320.0, 10.0
    scale_x = (_WIDTH - left) / max(num_operations, 1)
    scale_y = height / max(profile.arena_bytes, 1)
    parts = []
    for index, buffer in enumerate(arena):
        tip = (
            f"{buffer.name}\n{buffer.num_bytes:,} bytes at {buffer.offset:,}\n"
            f"operations {buffer.first} to {buffer.last}"
        )
        parts.append(
            rect(
                left + buffer.first * scale_x,
                top + height - (buffer.offset + buffer.num_bytes) * scale_y,
                (buffer.last - buffer.first + 1) * scale_x,
                buffer.num_bytes * scale_y,
                f"buffer b{index % 2}",
                tip,
            )
        )
    bound = top + height - profile.arena_lower_bound_bytes * scale_y
    parts += [
        line(left, bound, _WIDTH, bound, "bound"),
        label(_WIDTH - 4, bound + 13, "lower bound", "label", "end"),
    ]
    for mark in ticks(profile.arena_bytes / 1024, 4):
        y = top + height - mark * 1024 * scale_y
        if y >= top:
            parts += [line(left - 4, y, left, y, "axis"), label(0, y + 4, f"{mark:,.0f} KiB")]
    parts.append(label(left, top + height + 16, "operations in order"))
    return picture(_WIDTH, top + height + 22, parts, "arena over time")


def roof_chart(rows: Sequence[OperationRow], roofs: Roofs | None) -> str:
    """Each operation by its operations per byte and its rate, under the device's roofs."""
    dots = [
        (row.intensity, rate, row)
        for row in rows
        if (rate := row.giga_operations_per_second) and row.intensity > 0
    ]
    if not dots:
        return "<p>No operation has a time.</p>"
    rates = [rate for _, rate, _ in dots]
    longest = max(row.time_us or 0.0 for _, _, row in dots)
    top = max([*rates, *(roofs.peaks.values() if roofs else ())])
    x_range = _decades([x for x, _, _ in dots] + ([roofs.ridge] if roofs else []))
    y_range = _decades([*rates, top])
    left, height, top_margin = 70.0, 360.0, 12.0

    def x_of(value: float) -> float:
        return left + (math.log10(value) - x_range[0]) / (x_range[1] - x_range[0]) * (_WIDTH - left)

    def y_of(value: float) -> float:
        share = (math.log10(value) - y_range[0]) / (y_range[1] - y_range[0])
        return top_margin + (1 - share) * (height - top_margin)

    parts = []
    for decade in range(y_range[0], y_range[1] + 1):
        y = y_of(10.0**decade)
        parts += [line(left, y, _WIDTH, y, "grid"), label(0, y + 4, f"{10.0**decade:g} G/s")]
    for decade in range(x_range[0], x_range[1] + 1):
        x = x_of(10.0**decade)
        anchor = "end" if decade == x_range[1] else "middle"
        parts += [
            line(x, 0, x, height, "grid"),
            label(x, height + 16, f"{10.0**decade:g}", "label", anchor),
        ]
    parts.append(label(_WIDTH, height + 32, "operations per byte moved", "label", "end"))
    names: list[str] = []  # drawn last: dots lie along the roofs
    if roofs is not None:
        start, end = 10.0 ** x_range[0], 10.0 ** x_range[1]
        highest = max(roofs.peaks.values())
        low = max(start, 10.0 ** y_range[0] / roofs.memory_gbps)
        knee = min(end, highest / roofs.memory_gbps)
        if knee > low:
            parts.append(
                line(
                    x_of(low),
                    y_of(low * roofs.memory_gbps),
                    x_of(knee),
                    y_of(knee * roofs.memory_gbps),
                    "roof",
                )
            )
        for name, peak in roofs.peaks.items():
            from_x = min(max(peak / roofs.memory_gbps, start), end)
            parts.append(line(x_of(from_x), y_of(peak), _WIDTH, y_of(peak), "roof"))
            text = f"{name} {peak:,.0f} G/s"
            names.append(label(_WIDTH - 4, y_of(peak) - 4, text, "label above", "end"))
    for intensity, rate, row in dots:
        tip = f"{row.details.name}\n{rate:,.1f} G/s at {intensity:.2f} per byte"
        radius = 3 + 9 * math.sqrt((row.time_us or 0.0) / longest)
        parts.append(circle(x_of(intensity), y_of(rate), radius, f"dot t-{row.element_type}", tip))
    return picture(_WIDTH, height + 38, parts + names, "rate over intensity")


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low = math.floor(math.log10(min(values)))
    high = math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)
