"""Options of a build, checked when made."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace

from builder_host.calibration.table import CalibrationTable, load_table, table_of_ranges
from builder_host.errors import BuilderError
from builder_host.precision.rules import PRECISIONS, check_rules


@dataclass(frozen=True, slots=True)
class BuilderConfig:
    """Options of a build, checked when made.

    Attributes:
        target: `host-cpu` or `auto` (this machine's CPU), `cuda` or `cuda:N` (a GPU of this
            machine), a board's name, or the path of a fingerprint file that `edgeplan probe --json`
            wrote on the device.
        timing_cache: file to read timings from and add new ones to, or None.
        is_strict_cache: a timing that the cache lacks is an error instead of a measurement.
        workspace_limit_bytes: candidates that need more shared workspace are dropped.
        num_threads: worker threads that the plan is tuned for; None: every core of the target.
        measure: `local` times candidates here, or on the boards if there are any; `none` takes what
            the timing cache holds and ranks the rest by the cost model.
        boards: addresses of links to boards, `tcp://host:port` and so on: candidates are timed
            there. The first one's fingerprint is the target; `target` may name its board.
        link_key: key file of those links, or None.
        executor: where compilations run: `dask://host:port`, an executor, or None: own threads.
        trace_dir: where the network is written after each pass, or None.
        num_jobs: compilers at once; None: as many as there are cores here.
        compiler: `zig` (from pip), `gcc`, `clang` or a path.
        artifact_dir: store of generated code; None: the user's cache folder.
        precision: of layers that no rule names. `fp32`; `tf32` (CUDA: float32 whose products may
            be rounded to 10 bits); `fp16` (CUDA: stored in float16, accumulated in float32);
            `bf16` (CPUs with AVX512-BF16: stored in bfloat16, accumulated in float32);
            `int8` (needs ranges; the rest is float32 on CPUs, float16 on CUDA); `best`: whatever is
            fastest of those.
        layer_precision: patterns of layer names and `fp32`, `fp16` or `int8`; the last that
            matches counts.
        tensor_precision: patterns of tensor names and the least precision that stores them.
        calibration: dynamic ranges for int8: a table, or the path of one in TensorRT's text format.
        dynamic_ranges: largest magnitude by tensor name; counts before the table.
        sharing_tolerance: of several profiles the later ones take a tactic at most this many times
            slower than their fastest if its packed weights are in the plan already; at least 1.
        is_refittable: layers whose constants are equal have a place each for them in the plan, so
            that other weights need not be equal there.
        is_checked: compare the plan with the float64 reference before it is handed over; where the
            plan cannot run here, the reference becomes the expected output of its canary.
    """

    target: str = "host-cpu"
    timing_cache: str | os.PathLike[str] | None = None
    is_strict_cache: bool = False
    workspace_limit_bytes: int = 256 << 20
    num_threads: int | None = None
    measure: str = "local"
    boards: tuple[str, ...] = ()
    link_key: str | os.PathLike[str] | None = None
    executor: str | Executor | None = None
    trace_dir: str | os.PathLike[str] | None = None
    num_jobs: int | None = None
    compiler: str = "zig"
    artifact_dir: str | os.PathLike[str] | None = None
    precision: str = "fp32"
    sharing_tolerance: float = 1.1
    is_refittable: bool = False
    is_checked: bool = True
    layer_precision: tuple[tuple[str, str], ...] = ()
    tensor_precision: tuple[tuple[str, str], ...] = ()
    calibration: CalibrationTable | str | os.PathLike[str] | None = None
    dynamic_ranges: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.measure not in ("local", "none"):
            raise BuilderError(f"measure is '{self.measure}'; expected 'local' or 'none'")
        if self.boards and self.measure != "local":
            raise BuilderError(f"boards are named, but measure is '{self.measure}'")
        if self.precision not in PRECISIONS:
            raise BuilderError(
                f"precision is '{self.precision}'; expected one of {', '.join(PRECISIONS)}"
            )
        check_rules(self.layer_precision)
        check_rules(self.tensor_precision)
        for name, largest in self.dynamic_ranges.items():
            if not 0.0 < largest < math.inf:
                raise BuilderError(
                    f"dynamic range of '{name}' is {largest}; expected a finite magnitude above 0"
                )
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

    def with_table(self) -> BuilderConfig:
        """The same options with the calibration table read, and the dynamic ranges in it.

        Raises:
            BuilderError: the calibration table cannot be read.
        """
        return replace(self, calibration=self.table(), dynamic_ranges={})

    def table(self) -> CalibrationTable | None:
        """Calibration and dynamic ranges in one, None when the build has neither.

        Raises:
            BuilderError: the calibration table cannot be read.
        """
        if self.calibration is None and not self.dynamic_ranges:
            return None
        table = self.calibration or CalibrationTable("user")
        if not isinstance(table, CalibrationTable):
            table = load_table(table)
        own = table_of_ranges("user", self.dynamic_ranges)
        return replace(table, scales={**table.scales, **own.scales})
