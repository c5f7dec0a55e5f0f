"""Kernels that plugins bring along, in C: each is a tactic, timed like any other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from builder_host.kernels.family import (
    Array,
    KernelFamily,
    Problem,
    Program,
    Tactic,
    template_hash,
)
from builder_host.kernels.traffic import traffic_us
from builder_host.plugins import generation
from builder_host.targets.target import CpuTarget


class PluginFamily:
    """Kernel family `plugin`."""

    name = "plugin"
    device_kind = "cpu"
    template_hash = template_hash(Path(__file__).read_text(), Path(generation.__file__).read_text())

    def applies(self, problem: Problem, target: Any) -> bool:
        """The plugin has C kernels for these layouts; epilogues stay layers of their own."""
        return (
            problem.kind == "plugin"
            and problem.epilogue is None
            and isinstance(target, CpuTarget)
            and bool(generation.supported_kernels(problem, "cpu", target))
        )

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """The lowest of the kernels' own estimates; memory traffic where they have none."""
        traffic = traffic_us(problem, target)
        kernels = generation.supported_kernels(problem, "cpu", target)
        return min(traffic if k.estimate_us is None else k.estimate_us for k in kernels)

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """One per kernel."""
        return generation.tactics_of(
            self.name, generation.supported_kernels(problem, "cpu", target)
        )

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """The kernel's source behind its macros."""
        return generation.program_of(problem, tactic, "cpu", target, self.template_hash)

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """As the plugin packs them."""
        del target
        packed = generation.plugin_of(problem).pack(str(tactic.values["kernel"]), constants)
        return [None if c is None else np.ascontiguousarray(c) for c in packed]


FAMILY: KernelFamily = PluginFamily()
