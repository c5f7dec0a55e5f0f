"""Targets: the exact device that a plan is built for, with the limits that kernels must respect."""

from __future__ import annotations

from dataclasses import dataclass

from planformat.datatypes import TensorFormat


@dataclass(frozen=True, slots=True)
class CpuTarget:
    """A CPU as code generation sees it.

    Attributes:
        architecture: `x86_64` or `aarch64`.
        isa: `avx512`, `avx2` or `neon`: which vector header is compiled in.
        features: sorted ISA features as the compiler names them (e.g. `avx512vnni`).
        num_cores: physical cores usable by a plan.
        l1d_bytes, l2_bytes: per core; l3_bytes: shared, 0 when unknown.
        fma_gflops_per_core: estimated float32 peak of one core, for cost models only.
        memory_gbps: estimated single-core memory bandwidth, for cost models only.
    """

    architecture: str
    isa: str
    features: tuple[str, ...]
    num_cores: int
    l1d_bytes: int
    l2_bytes: int
    l3_bytes: int
    fma_gflops_per_core: float = 100.0
    memory_gbps: float = 20.0

    @property
    def vector_elems(self) -> int:
        """Float32 lanes of one vector register."""
        return {"avx512": 16, "avx2": 8, "neon": 4}[self.isa]

    @property
    def num_vector_registers(self) -> int:
        """Architectural vector registers."""
        return 16 if self.isa == "avx2" else 32

    @property
    def blocked_format(self) -> TensorFormat:
        """The blocked activation format: one vector of channels innermost."""
        return {
            16: TensorFormat.NCHW16C,
            8: TensorFormat.NCHW8C,
            4: TensorFormat.NCHW4C,
        }[self.vector_elems]
