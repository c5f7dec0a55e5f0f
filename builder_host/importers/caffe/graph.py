"""Blobs by writer: in-place layers overwrite a name, so each write is a version of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from builder_host.importers.caffe.problem import LayerProblem
from builder_host.importers.caffe.prototxt import LayerEntry, UnknownField
from builder_host.importers.caffe.sources import TRAINING_TYPES, is_source
from builder_host.importers.spelling import nearest


@dataclass(eq=False, slots=True)
class Version:
    """One write of a blob: the state of `blob` after layer `writer` (top number `top`)."""

    blob: str
    writer: Node
    top: int
    is_last: bool = True


@dataclass(eq=False, slots=True)
class Node:
    """One layer of the net, or one net-level input (then `message` is an Input layer).

    Attributes:
        bottoms: versions that it reads; None where the name is unknown.
        tops: versions that it writes.
        entry: its block of the text; None for a net-level input.
    """

    message: Any
    origin: str
    unknown: list[UnknownField]
    entry: LayerEntry | None = None
    bottoms: list[Version | None] = field(default_factory=list)
    tops: list[Version] = field(default_factory=list)
    is_needed: bool = False

    @property
    def is_source(self) -> bool:
        """Whether its tops are network inputs."""
        return is_source(self.message)


class Graph:
    """Nodes with their blobs resolved."""

    def __init__(self, nodes: Sequence[Node], left_out: Mapping[str, str]) -> None:
        """Resolve names in file order; `left_out` tells who would make the blobs not in the net."""
        self.nodes = list(nodes)
        self._left_out = left_out
        self.problems: list[str] = []
        self._last: dict[str, Version] = {}
        for node in self.nodes:
            for name in node.message.bottom:
                found = self._last.get(name)
                if found is None:
                    self.problems.append(f"{node.origin}: {self._no_maker(name)}")
                node.bottoms.append(found)
            for top, name in enumerate(node.message.top):
                before = self._last.get(name)
                if before is not None:
                    before.is_last = False
                    if name not in node.message.bottom:
                        self.problems.append(
                            f"{node.origin}: top '{name}' is already made by "
                            f"{before.writer.origin}, and this layer does not read it; "
                            "rename one of the two"
                        )
                version = Version(name, node, top)
                self._last[name] = version
                node.tops.append(version)

    def _no_maker(self, name: str) -> str:
        if name in self._left_out:
            return (
                f"bottom '{name}' is made by {self._left_out[name]}, which its include or "
                "exclude rules leave out; state another phase, stages or level"
            )
        return (
            f"bottom '{name}' is made by no layer above{nearest(name, self._last)}; "
            "correct the name or move the layer"
        )

    def default_outputs(self) -> list[tuple[str, Version]]:
        """Blobs that no layer reads, apart from inputs and the measures of training."""
        read = {
            version
            for node in self.nodes
            if node.message.type not in TRAINING_TYPES
            for version in node.bottoms
        }
        return [
            (version.blob, version)
            for node in self.nodes
            if not node.is_source and node.message.type not in TRAINING_TYPES
            for version in node.tops
            if version not in read
        ]

    def find_output(self, name: str) -> Version:
        """The last state of a blob; `blob@layer` is its state after that layer.

        A name that no blob has may be that of a layer: its first top as that layer leaves it.

        Raises:
            LayerProblem: nothing has that name.
        """
        if name in self._last:
            return self._last[name]
        blob, _, layer = name.rpartition("@")
        for node in self.nodes:
            if node.message.name == name and node.tops:
                return node.tops[0]
            for version in node.tops:
                if blob and version.blob == blob and node.message.name == layer:
                    return version
        raise LayerProblem(f"output '{name}' is made by no layer{nearest(name, self._last)}")

    def mark_needed(self, outputs: Sequence[Version]) -> None:
        """Set `is_needed` on every node that an output depends on."""
        stack = [version.writer for version in outputs]
        while stack:
            node = stack.pop()
            if not node.is_needed:
                node.is_needed = True
                bottoms = node.bottoms
                if node.message.type == "SoftmaxWithLoss":
                    bottoms = bottoms[:1]  # without the labels
                stack += [v.writer for v in bottoms if v is not None]
