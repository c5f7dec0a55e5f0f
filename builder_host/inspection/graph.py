"""The network after fusion as a drawing: operations in layers, tensors as curves between them."""

from __future__ import annotations

from collections.abc import Sequence

from builder_host.inspection.operations import OperationRow
from builder_host.inspection.svg import curve, label, number, picture, rect, title

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y = 210.0, 46.0, 14.0, 26.0
_CHARACTERS = 33


def network_graph(rows: Sequence[OperationRow]) -> str:
    """SVG of one profile.

    An operation stands one layer below the lowest of those that it reads from; a tensor that is a
    part of another (an elided concatenation) connects by the buffer that both live in.
    """
    sources = _sources(rows)
    depth: list[int] = []
    for index in range(len(rows)):
        depth.append(1 + max((depth[s] for s in sources[index]), default=-1))
    members: dict[int, list[int]] = {}
    for index, level in enumerate(depth):
        members.setdefault(level, []).append(index)
    widest = max(len(m) for m in members.values())
    width = widest * (_WIDTH + _GAP_X) + _GAP_X
    place = {
        index: (
            (width - len(level) * (_WIDTH + _GAP_X)) / 2 + _GAP_X / 2 + i * (_WIDTH + _GAP_X),
            d * (_HEIGHT + _GAP_Y) + 8,
        )
        for d, level in members.items()
        for i, index in enumerate(level)
    }
    parts = [
        curve(
            place[s][0] + _WIDTH / 2,
            place[s][1] + _HEIGHT,
            place[index][0] + _WIDTH / 2,
            place[index][1],
            "edge",
        )
        for index, found in enumerate(sources)
        for s in found
    ]
    parts += [_node(row, *place[index]) for index, row in enumerate(rows)]
    height = (max(depth) + 1) * (_HEIGHT + _GAP_Y) + 8
    return picture(width, height, parts, "network after fusion")


def _sources(rows: Sequence[OperationRow]) -> list[list[int]]:
    """For each operation the earlier ones whose buffers it reads, latest writers first."""
    writers: dict[str, list[int]] = {}
    found: list[list[int]] = []
    for index, row in enumerate(rows):
        names = [t.name for t in row.details.inputs if not t.is_constant]
        earlier: list[int] = []
        for name in dict.fromkeys(names):
            exact = writers.get(name)
            earlier += exact if exact else writers.get(_root(name), [])
        found.append(sorted(set(earlier)))
        for tensor in row.details.outputs:
            writers[tensor.name] = [index]
            whole = writers.setdefault(_root(tensor.name), [])
            if index not in whole:
                whole.append(index)
    return found


def _root(name: str) -> str:
    """The buffer of a view: `fire2/concat+256` lives in `fire2/concat`."""
    stem, plus, offset = name.rpartition("+")
    return stem if plus and offset.isdigit() else name


def _node(row: OperationRow, x: float, y: float) -> str:
    details = row.details
    time = "" if row.time_us is None else f"{row.time_us:.1f} µs"
    mark = "" if row.is_measured else " predicted"
    tip = "\n".join(
        filter(
            None,
            (
                details.name,
                f"{details.kind} {details.params}",
                f"epilogue {details.epilogue}" if details.epilogue else "",
                f"tactic {row.tactic} (of {details.num_candidates})",
                *(f"reads {t.name} {t.layout}" for t in details.inputs),
                *(f"writes {t.name} {t.layout}" for t in details.outputs),
                f"{time}{mark}",
                details.origin,
            ),
        )
    )
    family = row.tactic.partition("(")[0]
    return (
        f'<g transform="translate({number(x)} {number(y)})">{title(tip)}'
        + rect(0, 0, _WIDTH, _HEIGHT, f"node t-{row.element_type}")
        + label(6, 13, _short(details.name), "name")
        + label(6, 27, _short(family), "label")
        + label(6, 40, f"{row.element_type} {row.format}", "label")
        + label(_WIDTH - 6, 40, time, "label", "end")
        + "</g>"
    )


def _short(text: str) -> str:
    return text if len(text) <= _CHARACTERS else text[: _CHARACTERS - 1] + "…"
