"""Options of a build, checked when made."""

from __future__ import annotations

import os
from dataclasses import dataclass

from builder_host.errors import BuilderError


@dataclass(frozen=True, slots=True)
class BuilderConfig:
    """Options of a build, checked when made.

    Attributes:
        target: `host-cpu` or `auto` (this machine), or the path of a fingerprint file that
            `edgeplan probe --json` wrote on the device.
        timing_cache: file to read timings from and add new ones to, or None.
        is_strict_cache: a timing that the cache lacks is an error instead of a measurement.
        workspace_limit_bytes: candidates that need more shared workspace are dropped.
        num_threads: worker threads that the plan is tuned for; None: every core of the target.
        measure: `local` times candidates here; `none` takes what the timing cache holds and ranks
            the rest by the cost model.
        trace_dir: where the network is written after each pass, or None.
        num_jobs: compilers at once; None: as many as there are cores here.
        compiler: `zig` (from pip), `gcc`, `clang` or a path.
        artifact_dir: store of generated code; None: the user's cache folder.
        precision: `fp32`, or `fp16` (CUDA: stored in float16, accumulated in float32).
        sharing_tolerance: of several profiles the later ones take a tactic at most this many times
            slower than their fastest if its packed weights are in the plan already; at least 1.
        is_checked: compare the plan with the float64 reference before it is handed over; where the
            plan cannot run here, the reference becomes the expected output of its canary.
    """

    target: str = "host-cpu"
    timing_cache: str | os.PathLike[str] | None = None
    is_strict_cache: bool = False
    workspace_limit_bytes: int = 256 << 20
    num_threads: int | None = None
    measure: str = "local"
    trace_dir: str | os.PathLike[str] | None = None
    num_jobs: int | None = None
    compiler: str = "zig"
    artifact_dir: str | os.PathLike[str] | None = None
    precision: str = "fp32"
    sharing_tolerance: float = 1.1
    is_checked: bool = True

    def __post_init__(self) -> None:
        if self.measure not in ("local", "none"):
            raise BuilderError(f"measure is '{self.measure}'; expected 'local' or 'none'")
        if self.precision not in ("fp32", "fp16"):
            raise BuilderError(f"precision is '{self.precision}'; expected 'fp32' or 'fp16'")
        for name in ("num_threads", "num_jobs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BuilderError(f"{name} is {value}; expected at least 1")
        if not self.sharing_tolerance >= 1.0:
            raise BuilderError(
                f"sharing_tolerance is {self.sharing_tolerance}; expected at least 1"
            )
        if self.workspace_limit_bytes < 0:
            raise BuilderError(f"workspace_limit_bytes is {self.workspace_limit_bytes}")
        if self.is_strict_cache and self.timing_cache is None:
            raise BuilderError("a strict build needs a timing cache; name its file")
