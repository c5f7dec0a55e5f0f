"""Which families can compute a problem, the cheapest first. Answers are remembered by text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from builder_host.kernels.family import KernelFamily, Problem
from builder_host.kernels.remembered_ranks import RememberedRanks


class FamilyChoice:
    """The kernel families of one build, asked many times about equal problems.

    `tf32_layers`: names of layers whose float32 products may be rounded to 10 bits.
    """

    def __init__(
        self,
        families: Sequence[KernelFamily],
        target: Any,
        remembered: RememberedRanks | None = None,
    ) -> None:
        """Families in their registry order, which breaks ties; ranks of earlier builds."""
        self.families = tuple(families)
        self.target = target
        self.tf32_layers: frozenset[str] = frozenset()
        self._remembered = remembered
        self._ranked: dict[str, tuple[tuple[float, KernelFamily], ...]] = {}

    def math_of(self, layer_name: str) -> Literal["", "tf32"]:
        """`Problem.math` of a layer."""
        return "tf32" if layer_name in self.tf32_layers else ""

    def ranked(self, problem: Problem) -> tuple[tuple[float, KernelFamily], ...]:
        """Estimated time in microseconds and family, for each family that applies."""
        key = problem.text()
        found = self._ranked.get(key)
        if found is None:
            found = self._from_memory(problem, key)
            self._ranked[key] = found
        return found

    def _from_memory(self, problem: Problem, key: str) -> tuple[tuple[float, KernelFamily], ...]:
        """From an earlier build if it ranked this; plugins run code that no hash covers."""
        if self._remembered is None or problem.kind == "plugin":
            return self._estimated(problem)
        known = self._remembered.get(key)
        by_name = {family.name: family for family in self.families}
        if known is not None and all(name in by_name for _, name in known):
            return tuple((cost, by_name[name]) for cost, name in known)
        found = self._estimated(problem)
        self._remembered.put(key, tuple((cost, family.name) for cost, family in found))
        return found

    def _estimated(self, problem: Problem) -> tuple[tuple[float, KernelFamily], ...]:
        rows = [
            (family.estimate_us(problem, self.target), order, family)
            for order, family in enumerate(self.families)
            if family.applies(problem, self.target)
        ]
        rows.sort(key=lambda row: row[:2])
        return tuple((cost, family) for cost, _, family in rows)

    def can_compute(self, problem: Problem) -> bool:
        """Whether any family applies."""
        return bool(self.ranked(problem))

    def cost_us(self, problem: Problem) -> float:
        """Estimate of the cheapest family; infinite when none applies."""
        ranked = self.ranked(problem)
        return ranked[0][0] if ranked else float("inf")
