"""Mixed precision: which layers lose accuracy in INT8, and what time keeping them in float costs.

Each layer is first quantised alone and its effect on the outputs measured. Then, from all in INT8,
the most sensitive ones are taken out until the loss on the samples is within the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.builder import build, resolve_target
from builder_host.calibration.batches import batched
from builder_host.calibration.table import CalibrationTable
from builder_host.config import BuilderConfig
from builder_host.errors import BuilderError
from builder_host.kernels.choice import FamilyChoice
from builder_host.lowering.draft import make_draft
from builder_host.measure.local import load_engine
from builder_host.network.copying import copy_network
from builder_host.network.network import Network
from builder_host.passes import quantise
from builder_host.passes.pipeline import run_passes
from builder_host.precision.cost import literal_pattern
from builder_host.targets.backend import Backend, make_backend
from builder_host.targets.target import target_hardware

Array = npt.NDArray[Any]
Progress = Callable[[str, int, int], None]
Rules = tuple[tuple[str, str], ...]

MAX_SAMPLES_PER_LAYER = 32  # enough to rank layers; the loss of a choice is measured on all


@dataclass(frozen=True, slots=True)
class LayerSensitivity:
    """One layer in INT8 alone: relative L2 error of the outputs, which it causes."""

    layer: str
    error: float


@dataclass(frozen=True, slots=True)
class TradePoint:
    """One choice of precisions.

    Attributes:
        num_float: sensitive layers kept in float; num_int8: layers computed in INT8.
        predicted_us: sum of the operations' times by the target's cost model.
        loss: as `TradeOff.measure` says; error: relative L2 error of the outputs.
    """

    num_float: int
    num_int8: int
    predicted_us: float
    loss: float
    error: float


@dataclass(frozen=True, slots=True)
class TradeOff:
    """Accuracy against predicted time.

    Attributes:
        budget: largest loss allowed, as a fraction.
        measure: what loss is.
        sensitivities: the most sensitive layer first.
        points: the fewest layers in float first; the last one has all in float.
        chosen: the point taken: the fastest within the budget.
        rules: `layer_precision` of a build that makes this choice.
    """

    budget: float
    measure: str
    num_samples: int
    sensitivities: tuple[LayerSensitivity, ...]
    points: tuple[TradePoint, ...]
    chosen: TradePoint
    rules: Rules

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def text(self) -> str:
        """Tables for people."""
        lines = [f"{'layer in INT8 alone':44} {'relative error of the outputs':>29}"]
        lines += [f"{row.layer[:44]:44} {row.error:29.2e}" for row in self.sensitivities]
        lines += [
            "",
            f"loss: {self.measure}, {self.num_samples} samples, budget {100 * self.budget:g} %",
            f"{'in float':>8} {'in INT8':>8} {'predicted us':>13} {'loss %':>8} {'error':>9}",
        ]
        for point in self.points:
            mark = " <- chosen" if point == self.chosen else ""
            lines.append(
                f"{point.num_float:8} {point.num_int8:8} {point.predicted_us:13,.0f} "
                f"{100 * point.loss:8.2f} {point.error:9.2e}{mark}"
            )
        return "\n".join(lines)


def trade_precision(
    network: Network,
    table: CalibrationTable,
    samples: Iterable[Any],
    *,
    budget: float,
    config: BuilderConfig,
    progress: Progress | None = None,
) -> TradeOff:
    """Find the layers that must stay in float for a loss within a budget.

    Args:
        network: as imported.
        table: dynamic ranges.
        samples: see `calibration.batches.batched`; kept in memory.
        budget: largest loss, as a fraction: 0.005 is half a point.
        config: of the build; its target's cost model gives the times. Accuracy is measured on this
            machine's CPU.
        progress: called with a phase's name, items done and items in all.

    Raises:
        BuilderError: no sample, or no layer that can be computed in INT8.
    """
    return _Search(network, table, samples, budget, config, progress or _no_progress).run()


class _Search:
    def __init__(
        self,
        network: Network,
        table: CalibrationTable,
        samples: Iterable[Any],
        budget: float,
        config: BuilderConfig,
        progress: Progress,
    ) -> None:
        self.network = network
        self.budget = budget
        self.progress = progress
        self.batches = [
            ({n: np.array(a) for n, a in b.items()}, k) for b, k in batched(samples, network.inputs)
        ]
        self.num_samples = sum(count for _, count in self.batches)
        if not self.num_samples:
            raise BuilderError("no sample to measure the layers' effect with")
        fingerprint, _ = resolve_target(config.target)
        self.backend: Backend = make_backend(
            fingerprint,
            compiler=config.compiler,
            artifact_dir=config.artifact_dir,
            jobs=1,
            hardware=target_hardware(config.target),
        )
        self.config = replace(
            config, calibration=table, is_checked=False, measure="none", trace_dir=None,
            timing_cache=None, is_strict_cache=False,
        )  # fmt: skip
        probe = copy_network(network)
        run_passes(probe)
        self.layers = [y.name for y in quantise.quantisable_layers(probe)]
        if not self.layers:
            raise BuilderError("the network has no layer that can be computed in INT8")
        self.reference = self._outputs("fp32", (), self.batches)
        self.measure = _measure_of(self.reference)

    def run(self) -> TradeOff:
        """Rank, then search the shortest list of layers in float within the budget."""
        ranked = self._ranked()
        total = len(ranked)
        points: dict[int, TradePoint] = {}

        def point(count: int) -> TradePoint:
            if count not in points:
                points[count] = self._point(ranked, count)
                self.progress("trade", len(points), 0)
            return points[count]

        low, high = 0, total  # loss(high) is within the budget: nothing is quantised
        if point(0).loss > self.budget:
            step = 1
            while step < total and point(step).loss > self.budget:
                low, step = step, step * 2
            high = min(step, total)
            while high - low > 1:
                middle = (low + high) // 2
                if point(middle).loss > self.budget:
                    low = middle
                else:
                    high = middle
        else:
            high = 0
        point(total)
        within = [p for p in points.values() if p.loss <= self.budget]
        chosen = min(within, key=lambda p: (p.predicted_us, p.num_float))
        return TradeOff(
            self.budget,
            self.measure,
            self.num_samples,
            tuple(ranked),
            tuple(points[count] for count in sorted(points)),
            chosen,
            _rules([row.layer for row in ranked[: chosen.num_float]]),
        )

    def _ranked(self) -> list[LayerSensitivity]:
        few: list[tuple[dict[str, Array], int]] = []
        for batch in self.batches:
            if sum(count for _, count in few) < MAX_SAMPLES_PER_LAYER:
                few.append(batch)
        exact = {name: rows[: sum(k for _, k in few)] for name, rows in self.reference.items()}
        found = []
        for number, layer in enumerate(self.layers, start=1):
            outputs = self._outputs("fp32", ((literal_pattern(layer), "int8"),), few)
            found.append(LayerSensitivity(layer, _relative_error(exact, outputs)))
            self.progress("layers", number, len(self.layers))
        return sorted(found, key=lambda row: (-row.error, row.layer))

    def _point(self, ranked: Sequence[LayerSensitivity], count: int) -> TradePoint:
        rules = _rules([row.layer for row in ranked[:count]])
        # all but these in INT8; the cost model may later leave further layers in float
        is_float = count == len(ranked)
        outputs = self.reference if is_float else self._outputs("int8", rules, self.batches)
        draft = make_draft(
            "trade",
            self.network,
            replace(self.config, precision="best", layer_precision=rules),
            self.backend,
            num_workers=self.config.num_threads or self.backend.default_workers,
            trace=None,
        )
        choice = FamilyChoice(self.backend.families, self.backend.target)
        return TradePoint(
            count,
            draft.precision.num_int8_layers,
            sum(choice.cost_us(operation.problem) for operation in draft.operations),
            _loss(self.reference, outputs, self.measure),
            _relative_error(self.reference, outputs),
        )

    def _outputs(
        self, precision: str, rules: Rules, batches: Iterable[tuple[dict[str, Array], int]]
    ) -> dict[str, Array]:
        """Outputs by name, [samples, values], of a plan on this machine."""
        plain = replace(self.config, target="host-cpu", precision=precision, layer_precision=rules)
        rows: dict[str, list[Array]] = {}
        size = self.network.inputs[0].shape[0] if self.network.inputs[0].shape else 1
        with (
            load_engine(build(self.network, plain).plan) as engine,
            engine.create_context() as context,
        ):
            for arrays, count in batches:
                for name, values in context.execute(arrays).items():
                    flat = np.asarray(values, dtype=np.float64)
                    flat = flat.reshape(size, -1)[:count] if flat.size % size == 0 else flat[None]
                    rows.setdefault(name, []).append(flat)
        return {name: np.concatenate(parts) for name, parts in rows.items()}


def _rules(in_float: Sequence[str]) -> Rules:
    return tuple((literal_pattern(name), "fp32") for name in in_float)


def _measure_of(reference: dict[str, Array]) -> str:
    if len(reference) == 1:
        (rows,) = reference.values()
        if rows.ndim == 2 and 2 <= rows.shape[1] <= 100_000:
            return "share of samples whose best class changes"
    return "relative error of the outputs"


def _loss(reference: dict[str, Array], outputs: dict[str, Array], measure: str) -> float:
    if measure.startswith("relative"):
        return _relative_error(reference, outputs)
    (name,) = reference
    return float(np.mean(reference[name].argmax(axis=1) != outputs[name].argmax(axis=1)))


def _relative_error(reference: dict[str, Array], outputs: dict[str, Array]) -> float:
    """The largest over all outputs."""
    worst = 0.0
    for name, expected in reference.items():
        norm = float(np.linalg.norm(expected))
        error = float(np.linalg.norm(outputs[name] - expected))
        worst = max(worst, error / max(norm, 1e-30))
    return worst


def _no_progress(_phase: str, _done: int, _total: int) -> None:
    pass
