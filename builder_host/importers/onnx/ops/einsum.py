"""Einsum as reductions, transposes and one matrix product per further operand."""

from __future__ import annotations

import math
import string
from dataclasses import dataclass

from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.layers.matrix_multiply import MatrixMultiplyParams
from builder_host.network.network import Tensor


@dataclass(frozen=True, slots=True)
class _Term:
    """A tensor with one label per dimension."""

    tensor: Tensor
    labels: str

    def extent(self, label: str) -> int:
        return self.tensor.shape[self.labels.index(label)]


@operator("Einsum", since=(12, 28))
def einsum(node: Node) -> Tensor:
    """Explicit or implicit output, ellipsis, diagonals."""
    tensors = node.required()
    equation = node.attr_text("equation", "").replace(" ", "")
    left, arrow, result = equation.partition("->")
    parts = left.split(",")
    if len(parts) != len(tensors):
        node.fail(
            f"equation '{equation}' has {len(parts)} operands, the node {len(tensors)} inputs"
        )
    free = [c for c in string.ascii_letters if c not in equation]
    ellipsis = ""
    terms = []
    for part, tensor in zip(parts, tensors, strict=True):
        named = part.replace("...", "")
        hidden = tensor.type.rank - len(named)
        if hidden < 0 or (hidden and "..." not in part) or not (named.isalpha() or not named):
            node.fail(f"'{part}' of equation '{equation}' does not fit {tensor.type}")
        dots = "".join(free[:hidden][::-1])  # the last hidden dimension is free[0] everywhere
        ellipsis = max(ellipsis, dots, key=len)
        labels = part.replace("...", dots)
        terms.append(_diagonal(node, _Term(tensor, labels)))
    if arrow:
        wanted = result.replace("...", ellipsis)
    else:
        once = [c for c in sorted(set(left) - set(",.")) if left.count(c) == 1]
        wanted = ellipsis + "".join(once)
    if len(set(wanted)) != len(wanted) or not set(wanted) <= set("".join(t.labels for t in terms)):
        node.fail(f"the output of equation '{equation}' repeats a label or invents one")
    term = terms[0]
    for place, other in enumerate(terms[1:], start=2):
        needed = set(wanted).union(*(t.labels for t in terms[place:]))
        term = _product(node, term, other, needed)
    term = _summed(node, term, set(wanted))
    return node.transpose(term.tensor, [term.labels.index(c) for c in wanted])


def _diagonal(node: Node, term: _Term) -> _Term:
    """The term with each label once: of two equal dimensions only the diagonal stays."""
    for label in dict.fromkeys(term.labels):
        while term.labels.count(label) > 1:
            first = term.labels.index(label)
            second = term.labels.index(label, first + 1)
            rest = [i for i in range(len(term.labels)) if i not in (first, second)]
            shape, extent = term.tensor.shape, term.tensor.shape[first]
            if shape[second] != extent or not extent:
                node.fail(f"label '{label}' has extent {extent} and {shape[second]}")
            kept = [shape[i] for i in rest]
            moved = node.transpose(term.tensor, [*rest, first, second])
            flat = node.reshape(moved, (*kept, extent * extent))
            zeros, ones = [0] * (len(rest) + 1), [1] * len(rest)
            part = node.slice(flat, zeros, (*kept, extent), (*ones, extent + 1))
            term = _Term(part, "".join(term.labels[i] for i in rest) + label)
    return term


def _summed(node: Node, term: _Term, keep: set[str]) -> _Term:
    axes = [i for i, label in enumerate(term.labels) if label not in keep]
    if not axes:
        return term
    labels = "".join(label for label in term.labels if label in keep)
    return _Term(node.reduce("sum", term.tensor, axes, keep_dims=False), labels)


def _product(node: Node, a: _Term, b: _Term, needed: set[str]) -> _Term:
    """Product of two terms, summed over shared labels that nothing else needs."""
    a = _summed(node, a, needed | set(b.labels))
    b = _summed(node, b, needed | set(a.labels))
    shared = [c for c in a.labels if c in b.labels]
    for label in shared:
        if a.extent(label) != b.extent(label):
            node.fail(f"label '{label}' has extent {a.extent(label)} and {b.extent(label)}")
    batch = [c for c in shared if c in needed]
    inner = [c for c in shared if c not in needed]
    rows = [c for c in a.labels if c not in b.labels]
    columns = [c for c in b.labels if c not in a.labels]
    sizes = {c: a.extent(c) for c in a.labels} | {c: b.extent(c) for c in b.labels}
    left = _matrices(node, a, batch, rows, inner)
    right = _matrices(node, b, batch, inner, columns)
    y = node.add("matrix_multiply", MatrixMultiplyParams(), left, right)
    labels = [*batch, *rows, *columns]
    return _Term(node.reshape(y, [sizes[c] for c in labels]), "".join(labels))


def _matrices(
    node: Node, term: _Term, batch: list[str], rows: list[str], columns: list[str]
) -> Tensor:
    """The term as [batch, rows, columns], each group of labels flattened."""
    order = [term.labels.index(c) for c in [*batch, *rows, *columns]]
    moved = node.transpose(term.tensor, order)
    groups = [math.prod(term.extent(c) for c in group) for group in (batch, rows, columns)]
    return node.reshape(moved, groups)
