"""Network inputs: what the caller registers against what the file states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from builder_host.importers.uff.orders import ANY_RANK, Order, order_for_rank
from builder_host.importers.uff.problem import NodeProblem
from builder_host.importers.uff.reader import ORDERS, UffModel, UffNode
from planformat.datatypes import DataType

_IMAGE_RANK = 4

AxisOrder = Literal["NCHW", "NHWC"]

_DTYPES = {
    "<i1": DataType.INT8,
    "<i2": DataType.INT16,
    "<i4": DataType.INT32,
    "<i8": DataType.INT64,
    "<f2": DataType.FLOAT16,
    "<f4": DataType.FLOAT32,
}


def input_dtype(node: UffNode) -> DataType:
    """Element type of an Input node; FLOAT32 where it says nothing."""
    stated: Any = node.fields.get("dtype", "<f4")
    if stated not in _DTYPES:
        raise NodeProblem(f"field 'dtype' is {stated!r}, must be an element type")
    return _DTYPES[stated]


def input_order(model: UffModel, name: str, rank: int) -> Order | None:
    """Canonical axis of each axis of an input: as the nearest node reads it that states orders.

    None where no node does.
    """
    readers: dict[str, list[UffNode]] = {}
    for node in model.nodes.values():
        for source in node.inputs:
            readers.setdefault(source, []).append(node)
    seen, front = {name}, [name]
    while front:
        after: list[str] = []
        for source in front:
            for node in readers.get(source, []):
                orders = node.fields.get(ORDERS)
                at = node.inputs.index(source)
                if isinstance(orders, tuple) and at < len(orders):
                    return order_for_rank(orders[at], rank)
                if node.id not in seen:
                    seen.add(node.id)
                    after.append(node.id)
        front = after
    return None


def has_channels_last(model: UffModel) -> bool:
    """Whether any node reads images with the channels behind the rows and columns."""
    for node in model.nodes.values():
        orders = node.fields.get(ORDERS)
        stated = orders[0].get(_IMAGE_RANK, orders[0].get(ANY_RANK)) if orders else None
        if stated is not None and len(stated) > 2 and stated[0] == 0 and stated[-1] == 1:
            return True
    return False


def input_shape(
    node: UffNode, registered: Mapping[str, Sequence[int]], order: AxisOrder, model: UffModel
) -> tuple[tuple[int, ...], Order]:
    """Shape of a network input as the caller sees it, and the dimension of each file axis.

    Args:
        node: an Input node.
        registered: shapes by name, batch included, images in `order`.
        order: of registered images: four dimensions, read by a node that states orders.
        model: the file.

    Raises:
        NodeProblem: nothing tells the shape, or it contradicts the file.
    """
    stated = _stated_shape(node)
    shape = registered.get(node.id)
    if shape is None:
        shape = _default_shape(node, stated, order, model)
    else:
        shape = tuple(int(d) for d in shape)
    if not shape or min(shape) < 1:
        raise NodeProblem(f"shape {shape} must have dimensions of at least 1, the batch first")
    rank = len(shape)
    axes = _dimensions(node, rank, order, model)
    in_file = tuple(shape[dim] for dim in axes)
    if stated and (
        len(stated) != rank
        or any(s not in (-1, f) for s, f in zip(stated[1:], in_file[1:], strict=True))
    ):
        raise NodeProblem(
            f"shape {in_file} in the file's axis order contradicts the {tuple(stated)} that the "
            f"file states; register it in {order} order as the network was trained"
        )
    return shape, axes


def _stated_shape(node: UffNode) -> tuple[int, ...]:
    stated: Any = node.fields.get("shape", ())
    if not isinstance(stated, tuple) or not all(isinstance(d, int) for d in stated):
        raise NodeProblem(f"field 'shape' is {stated!r}, must be whole numbers")
    return stated


def _default_shape(
    node: UffNode, stated: tuple[int, ...], order: AxisOrder, model: UffModel
) -> tuple[int, ...]:
    if not stated or any(d < 1 for d in stated[1:]):
        known = "x".join("?" if d < 1 else str(d) for d in stated) or "nothing"
        raise NodeProblem(
            f"the file states {known} as its shape; register it with "
            f"shapes={{'{node.id}': (1, C, H, W)}} (--uff-input {node.id},C,H,W)"
        )
    in_file = (max(1, stated[0]), *stated[1:])
    axes = _dimensions(node, len(in_file), order, model)
    return tuple(in_file[axes.index(dim)] for dim in range(len(in_file)))


def _dimensions(node: UffNode, rank: int, order: AxisOrder, model: UffModel) -> Order:
    """The caller's dimension of each file axis; they differ for images only."""
    file_order = input_order(model, node.id, rank) if rank == _IMAGE_RANK else None
    if file_order is None:
        return tuple(range(rank))
    caller_order = (0, 1, 2, 3) if order == "NCHW" else (0, 2, 3, 1)
    return tuple(caller_order.index(canonical) for canonical in file_order)
