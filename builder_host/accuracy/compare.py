"""Layer by layer: a plan's values against the float64 reference of the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.accuracy.step_outputs import StepReader
from builder_host.calibration.batches import batched
from builder_host.errors import BuilderError
from builder_host.network.copying import copy_network
from builder_host.network.evaluate import evaluate_network
from builder_host.network.network import Network
from builder_host.passes import narrow_float
from builder_host.passes.pipeline import run_passes
from planformat.plan import Plan

Array = npt.NDArray[Any]
Progress = Callable[[str, int, int], None]

# Bad: noise of more than 18 % of the signal. INT8 noise adds up along a network: SqueezeNet ends
# near 20 dB, LeNet at 40; float16 stays above 50.
BAD_SQNR_DB = 15.0


@dataclass(slots=True)
class _Sums:
    """Sums over all samples of one tensor."""

    dot: float = 0.0
    reference: float = 0.0
    plan: float = 0.0
    error: float = 0.0
    largest_error: float = 0.0
    largest: float = 0.0

    def add(self, expected: Array, actual: Array) -> None:
        """Count values of equal shapes."""
        a, b = expected.reshape(-1), actual.reshape(-1)
        difference = np.abs(a - b)
        self.dot += float(a @ b)
        self.reference += float(a @ a)
        self.plan += float(b @ b)
        self.error += float(difference @ difference)
        self.largest_error = max(self.largest_error, float(difference.max(initial=0.0)))
        self.largest = max(self.largest, float(np.abs(a).max(initial=0.0)))


@dataclass(frozen=True, slots=True)
class LayerError:
    """Error of one tensor over all samples.

    Attributes:
        tensor: name in the model; operation, kind, tactic: what computed it in the plan.
        dtype: in which the plan stores it.
        cosine: of the angle between both; 1 when equal.
        max_error: largest absolute difference; largest: largest magnitude of the reference.
        relative: L2 norm of the difference over that of the reference.
        sqnr_db: signal to quantisation noise: -20 log10(relative); infinite when equal.
    """

    tensor: str
    operation: str
    kind: str
    tactic: str
    dtype: str
    cosine: float
    max_error: float
    largest: float
    relative: float
    sqnr_db: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """All layers in the plan's order.

    Attributes:
        layers: one per operation output that the model names.
        num_samples: how many were run.
        threshold_db: below it a layer is bad.
        skipped: outputs of operations that the model has no value for.
    """

    plan: str
    layers: tuple[LayerError, ...]
    num_samples: int
    threshold_db: float
    skipped: tuple[str, ...] = field(default=())

    @property
    def first_bad(self) -> LayerError | None:
        """The first layer below the threshold."""
        return next((y for y in self.layers if y.sqnr_db < self.threshold_db), None)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; infinite ratios become null."""
        rows = [asdict(layer) for layer in self.layers]
        for row in rows:
            row["sqnr_db"] = row["sqnr_db"] if math.isfinite(row["sqnr_db"]) else None
        bad = self.first_bad
        return {
            "plan": self.plan,
            "num_samples": self.num_samples,
            "threshold_db": self.threshold_db,
            "first_bad": bad.tensor if bad else None,
            "layers": rows,
            "skipped": list(self.skipped),
        }

    def text(self) -> str:
        """A table for people."""
        head = f"{'tensor':40} {'stored':>6} {'SQNR dB':>8} {'cosine':>10} {'relative':>9}"
        lines = [f"{head} {'max error':>10} {'of':>9}  kernel"]
        for row in self.layers:
            mark = " <- bad" if row.sqnr_db < self.threshold_db else ""
            lines.append(
                f"{row.tensor[:40]:40} {row.dtype:>6} {row.sqnr_db:8.1f} {row.cosine:10.7f} "
                f"{row.relative:9.2e} {row.max_error:10.3g} {row.largest:9.3g}  "
                f"{row.tactic.partition('(')[0]}{mark}"
            )
        bad = self.first_bad
        lines.append("")
        lines.append(
            f"{len(self.layers)} tensors over {self.num_samples} samples: "
            + (
                f"first bad layer: '{bad.operation}' (tensor '{bad.tensor}', {bad.sqnr_db:.1f} dB "
                f"< {self.threshold_db:g} dB)"
                if bad
                else f"none below {self.threshold_db:g} dB"
            )
        )
        return "\n".join(lines)


def compare_plan(
    network: Network,
    plan: Plan,
    samples: Iterable[Any],
    *,
    threshold_db: float = BAD_SQNR_DB,
    progress: Progress | None = None,
) -> Comparison:
    """Compare every value that both the model and the plan know.

    Args:
        network: as imported, with the shapes of the plan's first profile.
        plan: for this machine's CPU or GPU.
        samples: see `calibration.batches.batched`.
        threshold_db: below it a layer is bad.
        progress: called with a phase's name, samples done and samples in all (0: unknown).

    Raises:
        BuilderError: the plan is of another model or device, or there is no sample.
    """
    _check_same_inputs(network, plan)
    sums: dict[tuple[str, str], _Sums] = {}
    rows: dict[tuple[str, str], tuple[str, str, str]] = {}
    skipped: dict[str, None] = {}
    keep = [t for t in network.tensors() if not t.is_constant and t not in network.outputs]
    done = 0
    with StepReader(plan) as reader:
        for arrays, count in batched(samples, network.inputs):
            reference = evaluate_network(network, arrays, keep=keep)
            for found in reader.outputs(arrays):
                expected = reference.get(found.model_name)
                if expected is None or expected.size != found.values.size:
                    skipped[found.operation] = None
                    continue
                actual = found.values.astype(np.float64) * (found.scale or 1.0)
                key = (found.model_name, found.operation)
                wide = np.asarray(expected, dtype=np.float64)
                sums.setdefault(key, _Sums()).add(wide, actual)
                rows[key] = (found.kind, found.tactic, found.dtype)
            done += count
            if progress is not None:
                progress("compare", done, 0)
    if not done:
        raise BuilderError("no sample to compare with")
    layers = tuple(
        _layer_error(tensor, operation, rows[tensor, operation], total)
        for (tensor, operation), total in sums.items()
    )
    return Comparison(plan.name, layers, done, threshold_db, tuple(skipped))


def compare_emulated(
    network: Network,
    samples: Iterable[Any],
    *,
    threshold_db: float = BAD_SQNR_DB,
    progress: Progress | None = None,
) -> Comparison:
    """The same for float16 without a GPU: storage rounding emulated in the fused network.

    Sums are exact here and float32 on a GPU, which is far below the rounding of what is stored.
    Arguments as for `compare_plan`.
    """
    fused = copy_network(network)
    run_passes(fused)
    narrow_float.run(fused)
    kept = [t for y in fused.layers for t in y.outputs if t.dtype.is_float]
    keep = [t for t in network.tensors() if not t.is_constant and t not in network.outputs]
    sums: dict[tuple[str, str], _Sums] = {}
    rows: dict[tuple[str, str], tuple[str, str, str]] = {}
    done = 0
    for arrays, count in batched(samples, network.inputs):
        reference = evaluate_network(network, arrays, keep=keep)
        found = evaluate_network(fused, arrays, keep=kept, rounds_storage=True)
        for layer in fused.layers:
            for tensor in layer.outputs:
                name = next((n for n in fused.names_of(tensor) if n in reference), None)
                if name is None or tensor.name not in found:
                    continue
                wide = np.asarray(reference[name], dtype=np.float64)
                sums.setdefault((name, layer.name), _Sums()).add(wide, found[tensor.name])
                rows[name, layer.name] = (layer.kind, "emulated", tensor.dtype.text)
        done += count
        if progress is not None:
            progress("compare", done, 0)
    if not done:
        raise BuilderError("no sample to compare with")
    layers = tuple(
        _layer_error(tensor, operation, rows[tensor, operation], total)
        for (tensor, operation), total in sums.items()
    )
    return Comparison(f"{network.name} in emulated float16", layers, done, threshold_db)


def _layer_error(
    tensor: str, operation: str, row: tuple[str, str, str], total: _Sums
) -> LayerError:
    kind, tactic, dtype = row
    both = math.sqrt(total.reference * total.plan)
    if total.error == 0.0:
        cosine, relative, ratio = 1.0, 0.0, math.inf
    elif total.reference == 0.0 or not math.isfinite(total.error):
        cosine, relative, ratio = 0.0, math.inf, -math.inf
    else:
        cosine = total.dot / both if both else 0.0
        relative = math.sqrt(total.error / total.reference)
        ratio = -20.0 * math.log10(relative)
    return LayerError(
        tensor, operation, kind, tactic, dtype,
        cosine, total.largest_error, total.largest, relative, ratio,
    )  # fmt: skip


def _check_same_inputs(network: Network, plan: Plan) -> None:
    shapes = plan.variants[0].profiles[0].shapes
    wanted = [
        (binding.name, shape)
        for binding, shape in zip(plan.bindings, shapes, strict=True)
        if binding.is_input
    ]
    found = [(t.name, t.shape) for t in network.inputs]
    if wanted != found:
        raise BuilderError(
            f"the plan takes {_named(wanted)}, the model {_named(found)}; it was built from "
            "another model or with other shapes"
        )


def _named(inputs: Sequence[tuple[str, tuple[int, ...]]]) -> str:
    return ", ".join(f"'{name}' {list(shape)}" for name, shape in inputs) or "no input"
