"""Which families can compute a problem, the cheapest first. Answers are remembered by text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from builder_host.kernels.family import KernelFamily, Problem


class FamilyChoice:
    """The kernel families of one build, asked many times about equal problems.

    `tf32_layers`: names of layers whose float32 products may be rounded to 10 bits.
    """

    def __init__(self, families: Sequence[KernelFamily], target: Any) -> None:
        """Families in their registry order, which breaks ties."""
        self.families = tuple(families)
        self.target = target
        self.tf32_layers: frozenset[str] = frozenset()
        self._ranked: dict[str, tuple[tuple[float, KernelFamily], ...]] = {}

    def math_of(self, layer_name: str) -> Literal["", "tf32"]:
        """`Problem.math` of a layer."""
        return "tf32" if layer_name in self.tf32_layers else ""

    def ranked(self, problem: Problem) -> tuple[tuple[float, KernelFamily], ...]:
        """Estimated time in microseconds and family, for each family that applies."""
        key = problem.text()
        found = self._ranked.get(key)
        if found is None:
            rows = [
                (family.estimate_us(problem, self.target), order, family)
                for order, family in enumerate(self.families)
                if family.applies(problem, self.target)
            ]
            rows.sort(key=lambda row: row[:2])
            found = tuple((cost, family) for cost, _, family in rows)
            self._ranked[key] = found
        return found

    def can_compute(self, problem: Problem) -> bool:
        """Whether any family applies."""
        return bool(self.ranked(problem))

    def cost_us(self, problem: Problem) -> float:
        """Estimate of the cheapest family; infinite when none applies."""
        ranked = self.ranked(problem)
        return ranked[0][0] if ranked else float("inf")
