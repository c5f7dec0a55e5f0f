"""Which layers of a file belong to a net: phase, level and stage rules of BVLC Caffe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from builder_host.importers.caffe import schema


@dataclass(frozen=True, slots=True)
class NetState:
    """The state that `include` and `exclude` rules are held against."""

    phase: str = "TEST"
    level: int = 0
    stages: frozenset[str] = frozenset()

    def meets(self, rule: Any) -> bool:
        """Whether the state meets every condition of one NetStateRule."""
        if rule.HasField("phase") and _phase_name(rule.phase) != self.phase:
            return False
        if rule.HasField("min_level") and self.level < rule.min_level:
            return False
        if rule.HasField("max_level") and self.level > rule.max_level:
            return False
        return self.stages.issuperset(rule.stage) and self.stages.isdisjoint(rule.not_stage)

    def includes(self, layer: Any) -> bool:
        """Whether a layer is in the net: some include rule, or no exclude rule, is met.

        Raises:
            ValueError: the layer has rules of both kinds.
        """
        if layer.include and layer.exclude:
            raise ValueError("has both include and exclude rules; keep one kind")
        if layer.include:
            return any(self.meets(rule) for rule in layer.include)
        return not any(self.meets(rule) for rule in layer.exclude)


def net_state(net: Any, phase: str, stages: Sequence[str], level: int) -> NetState:
    """State from the caller's wishes and the file's own `state` (stages add, level 0 yields).

    Raises:
        ValueError: phase is neither TRAIN nor TEST.
    """
    known = tuple(schema.enum_type("Phase").values_by_name)
    if phase not in known:
        raise ValueError(f"phase is '{phase}', must be one of {', '.join(known)}")
    return NetState(phase, level or net.state.level, frozenset(stages) | set(net.state.stage))


def _phase_name(number: int) -> str:
    return str(schema.enum_type("Phase").values_by_number[number].name)
