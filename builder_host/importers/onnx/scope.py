"""Names visible at one level of a model, and the order in which its nodes can be translated."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx

from builder_host.importers.onnx.values import Value


@dataclass(slots=True)
class Scope:
    """Values of a graph, of a branch or loop body, or of a function body.

    Attributes:
        opsets: version by domain ("" is ai.onnx).
        initializers: stored tensors by name; they become constants on first use.
        where: prefix of messages about nodes in here.
        parent: scope of the enclosing graph, for branches and loop bodies.
        depth: nesting depth; bounds recursion.
        values: translated values; None marks one that could not be translated.
    """

    opsets: Mapping[str, int]
    initializers: Mapping[str, onnx.TensorProto | onnx.SparseTensorProto]
    where: str = ""
    parent: Scope | None = None
    depth: int = 0
    values: dict[str, Value | None] = field(default_factory=dict)

    def knows(self, name: str) -> bool:
        """Whether the name has a value here or further out."""
        if name in self.values or name in self.initializers:
            return True
        return self.parent is not None and self.parent.knows(name)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Node numbers in an order in which inputs come first, the values read, and the problems."""

    order: tuple[int, ...]
    read: frozenset[str]
    problems: tuple[str, ...]


def node_title(index: int, node: onnx.NodeProto) -> str:
    """How messages name a node, e.g. `ONNX node 41 Conv 'conv3'`."""
    return f"ONNX node {index} {node.op_type}" + (f" '{node.name}'" if node.name else "")


def names_read(node: onnx.NodeProto) -> list[str]:
    """Names that a node reads, those captured by its subgraphs included."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            names += _captured(graph)
    return names


def _captured(graph: onnx.GraphProto) -> list[str]:
    own = {name for node in graph.node for name in node.output}
    own |= {t.name for t in graph.initializer} | {i.name for i in graph.input}
    read = [name for node in graph.node for name in names_read(node)]
    read += [output.name for output in graph.output]
    return [name for name in dict.fromkeys(read) if name not in own]


def schedule(nodes: Sequence[onnx.NodeProto], wanted: Iterable[str], scope: Scope) -> Schedule:
    """Nodes that the wanted values need, inputs first; otherwise in the order of the file.

    Problems are values with two producers or none, and cycles; what they touch is left out.
    """
    problems: list[str] = []
    producer: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in node.output:
            if not name:
                continue
            if name in producer or name in scope.values or name in scope.initializers:
                problems.append(
                    f"{scope.where}{node_title(index, node)}: value '{name}' is produced twice; "
                    "names must be unique: export the model again"
                )
            producer.setdefault(name, index)
    needs: dict[int, set[int]] = {}
    read = set(wanted)
    pending = sorted({producer[name] for name in read if name in producer}, reverse=True)
    while pending:
        index = pending.pop()
        if index in needs:
            continue
        needs[index] = set()
        for name in names_read(nodes[index]):
            read.add(name)
            if name in producer:
                needs[index].add(producer[name])
                pending.append(producer[name])
            elif not scope.knows(name):
                problems.append(
                    f"{scope.where}{node_title(index, nodes[index])}: input '{name}' is produced "
                    "by no node, input or initialiser; export the model again"
                )
    order = _topological(needs)
    stuck = sorted(set(needs) - set(order))
    if stuck:
        shown = ", ".join(node_title(i, nodes[i]) for i in stuck[:8])
        more = f" and {len(stuck) - 8} more" if len(stuck) > 8 else ""
        problems.append(
            f"{scope.where}{len(stuck)} nodes depend on each other in a cycle: {shown}{more}; "
            "a network must be acyclic"
        )
    return Schedule(tuple(order), frozenset(read), tuple(problems))


def _topological(needs: Mapping[int, set[int]]) -> list[int]:
    readers: dict[int, list[int]] = {}
    missing = {index: len(required) for index, required in needs.items()}
    for index, required in needs.items():
        for other in required:
            readers.setdefault(other, []).append(index)
    ready = [index for index, count in missing.items() if not count]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for reader in readers.get(index, []):
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, reader)
    return order
