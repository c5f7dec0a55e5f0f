"""What a kernel family offers, and the problem that it is asked to solve.

A *problem* is one (fused) layer with layouts for all tensors: nothing else may influence the
kernel. A *tactic* is a family with parameters. A *program* is generated source with its launches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy.typing as npt

from builder_host.expressions import text as expression_text
from builder_host.layouts import Layout
from builder_host.network.network import Epilogue

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Problem:
    """A layer as a kernel sees it.

    Attributes:
        kind: layer kind; params: its parameters (frozen dataclass with a stable repr).
        inputs: layouts of own inputs, then of the epilogue's operands.
        is_constant: for each input, whether its values are known at build time and may be packed.
        outputs: layouts of the outputs.
        epilogue: applied to each element of outputs[0].
        num_workers: threads that will share the work (CPU).
        math: `tf32` where products of float32 values may be rounded to 10 bits, else empty.
    """

    kind: str
    params: Any
    inputs: tuple[Layout, ...]
    is_constant: tuple[bool, ...]
    outputs: tuple[Layout, ...]
    epilogue: Epilogue | None = None
    num_workers: int = 1
    math: Literal["", "tf32"] = ""

    @property
    def num_own_inputs(self) -> int:
        """Inputs without the operands of the epilogue."""
        return len(self.inputs) - (self.epilogue.num_operands if self.epilogue else 0)

    def text(self) -> str:
        """Canonical text: the problem's part of the timing cache key."""
        inputs = ";".join(
            layout.text() + ("!" if constant else "")
            for layout, constant in zip(self.inputs, self.is_constant, strict=True)
        )
        outputs = ";".join(layout.text() for layout in self.outputs)
        epilogue = (
            f"{expression_text(self.epilogue.expr)}/{self.epilogue.num_operands}"
            if self.epilogue
            else "-"
        )
        return f"{self.kind}|{self.params!r}|{inputs}|{outputs}|{epilogue}|t{self.num_workers}" + (
            f"|{self.math}" if self.math else ""
        )


@dataclass(frozen=True, slots=True)
class Tactic:
    """One kernel family with its parameters; `text` is its canonical id."""

    family: str
    params: tuple[tuple[str, int | str], ...] = ()

    @property
    def text(self) -> str:
        """E.g. `conv_direct(oc_blocks=2,pixels=14)`: sorted by parameter name."""
        inner = ",".join(f"{name}={value}" for name, value in sorted(self.params))
        return f"{self.family}({inner})"

    @property
    def values(self) -> Mapping[str, int | str]:
        """Parameters as a mapping."""
        return dict(self.params)


@dataclass(frozen=True, slots=True)
class Launch:
    """One function of a program; launches run in order with a barrier between them.

    Attributes:
        symbol: exported function; unique to the source text.
        num_units: independent work units that workers take one after another.
        scratch_bytes_per_worker: private, 64-byte aligned, contents undefined at each unit.
    """

    symbol: str
    num_units: int
    scratch_bytes_per_worker: int = 0


@dataclass(frozen=True, slots=True)
class GridLaunch:
    """One CUDA kernel of a program; kernels run in stream order.

    Attributes:
        symbol: exported kernel; every parameter is one 64-bit value.
        grid, block, cluster: launch geometry, x y z; grid in blocks.
        shared_memory_bytes: dynamic shared memory per block.
        is_dependent: programmatic dependent launch: the kernel may start before the one ahead of
            it has ended, and waits itself before it reads what that one wrote.
    """

    symbol: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    cluster: tuple[int, int, int] = (1, 1, 1)
    shared_memory_bytes: int = 0
    is_dependent: bool = False


@dataclass(frozen=True, slots=True)
class Program:
    """Generated source and how to launch it.

    CPU programs have `Launch`es, CUDA programs `GridLaunch`es, never both.

    Every launch gets the same argument array: inputs in problem order, outputs, then the shared
    workspace when `workspace_bytes` is not zero. Each argument points to the tensor's first element
    (packed constants: to the first packed byte); all base addresses are 64-byte aligned unless the
    layout is a strided view.
    """

    source: str
    launches: tuple[Launch | GridLaunch, ...]
    workspace_bytes: int = 0


class KernelFamily(Protocol):
    """One family; each folder in `builder_host/kernels/` has `family.py` binding `FAMILY`."""

    name: str
    device_kind: str  # `cpu` or `cuda`: which targets it is asked about
    template_hash: str

    def applies(self, problem: Problem, target: Any) -> bool:
        """Whether the family can compute the problem on the target, layouts included."""
        ...

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """Rough time in microseconds for one worker; ranks layouts and unmeasured tactics."""
        ...

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Tactics worth measuring, the expected best first; at most a dozen; never empty."""
        ...

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """Source and launches. Equal arguments give equal text."""
        ...

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """For each input the packed bytes of a constant (any dtype, C-contiguous), else None."""
        ...


def symbol_for(stem: str, *parts: str) -> str:
    """Exported symbol: readable stem and a hash of everything that shaped the source."""
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
    return f"{stem}_{digest}"


def template_hash(*texts: str) -> str:
    """Hash of template and generator sources, part of the timing cache key."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
