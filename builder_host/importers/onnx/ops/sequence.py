"""Sequences of tensors: they are taken apart while importing, so positions must be known."""

from __future__ import annotations

import numpy as np

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.importers.onnx.values import TensorSequence
from builder_host.importers.onnx.weights import element_type
from builder_host.network.layers.concatenation import ConcatenationParams
from builder_host.network.network import Tensor

MAX_ITEMS = 4096


@operator("SequenceEmpty", since=(11,))
def sequence_empty(node: Node) -> TensorSequence:
    """No tensors; the element type is float32 unless stated."""
    code = node.attr_int("dtype", 1)
    return TensorSequence((), element_type(code, "attribute 'dtype'"))


@operator("SequenceConstruct", since=(11,))
def sequence_construct(node: Node) -> TensorSequence:
    """The inputs in order."""
    items = tuple(node.required())
    return TensorSequence(items, items[0].dtype)


@operator("SequenceInsert", since=(11,))
def sequence_insert(node: Node) -> TensorSequence:
    """Before a position, or at the end."""
    sequence, item = node.sequence(0), node.input(1)
    count = len(sequence.items)
    place = count
    if node.optional(2) is not None:
        place = _position(node, 2, count, last=count)
    if count >= MAX_ITEMS:
        node.fail(f"the sequence would hold more than {MAX_ITEMS:,} tensors")
    items = (*sequence.items[:place], item, *sequence.items[place:])
    return TensorSequence(items, item.dtype)


@operator("SequenceErase", since=(11,))
def sequence_erase(node: Node) -> TensorSequence:
    """Without one position; the last by default."""
    sequence = node.sequence(0)
    count = len(sequence.items)
    place = count - 1
    if node.optional(1) is not None:
        place = _position(node, 1, count, last=count - 1)
    if not count:
        node.fail("the sequence is empty")
    return TensorSequence((*sequence.items[:place], *sequence.items[place + 1 :]), sequence.dtype)


@operator("SequenceAt", since=(11,))
def sequence_at(node: Node) -> Tensor:
    """One item."""
    sequence = node.sequence(0)
    return sequence.items[_position(node, 1, len(sequence.items), last=len(sequence.items) - 1)]


@operator("SequenceLength", since=(11,))
def sequence_length(node: Node) -> Tensor:
    """Number of items."""
    return node.const(np.asarray(len(node.sequence(0).items), np.int64))


@operator("ConcatFromSequence", since=(11,))
def concat_from_sequence(node: Node) -> Tensor:
    """Side by side along an axis, or along a new one."""
    items = list(node.sequence(0).items)
    if not items:
        node.fail("the sequence is empty; the shape of the result is not known")
    is_new = bool(node.attr_int("new_axis", 0))
    rank = items[0].type.rank + int(is_new)
    axis = node.axis(node.attr_int("axis", 0), rank)
    if is_new:
        items = [node.reshape(t, (*t.shape[:axis], 1, *t.shape[axis:])) for t in items]
    return node.add("concatenation", ConcatenationParams(axis), *items)


@operator("SplitToSequence", since=(11, 24))
def split_to_sequence(node: Node) -> TensorSequence:
    """Parts of stated lengths, of one length, or of length 1 (then the axis may be dropped)."""
    x = node.input(0)
    axis = node.axis(node.attr_int("axis", 0), x.type.rank)
    keeps = bool(node.attr_int("keepdims", 1))
    extent = x.shape[axis]
    split = node.optional_ints(1, "split")
    step = 1 if split is None else split[0] if not node.input(1).shape else extent
    if step >= 1 and extent // step > MAX_ITEMS:
        node.fail(f"{extent // step:,} parts are more than {MAX_ITEMS:,}")
    if split is None:
        lengths = [1] * extent
    elif not node.input(1).shape:
        if split[0] < 1:
            node.fail(f"the length of the parts is {split[0]}; it must be positive")
        whole, rest = divmod(extent, split[0])
        lengths = [split[0]] * whole + ([rest] if rest else [])
    else:
        lengths = list(split)
    if sum(lengths) != extent or min(lengths, default=0) < 0 or len(lengths) > MAX_ITEMS:
        node.fail(f"parts of {lengths[:8]} do not make up extent {extent} of axis {axis}")
    items: list[Tensor] = []
    start = 0
    for length in lengths:
        starts, sizes = [0] * x.type.rank, list(x.shape)
        starts[axis], sizes[axis] = start, length
        part = node.slice(x, starts, sizes, [1] * x.type.rank)
        if split is None and not keeps:
            part = node.reshape(part, (*x.shape[:axis], *x.shape[axis + 1 :]))
        items.append(part)
        start += length
    return TensorSequence(tuple(items), x.dtype)


def _position(node: Node, number: int, count: int, *, last: int) -> int:
    """A known position, from the end when negative."""
    stated = node.constant_ints(number, "position")
    if len(stated) != 1 or not -count <= stated[0] <= last:
        node.fail(f"position {stated} is not in a sequence of {count} tensors")
    return stated[0] + count if stated[0] < 0 else stated[0]
