"""Top-1 and top-5 of a plan on labelled samples, and how often it agrees with another plan."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.calibration.batches import batched
from builder_host.errors import BuilderError
from builder_host.measure.local import load_engine
from builder_host.network.network import Network
from planformat.plan import Plan

Array = npt.NDArray[Any]
Progress = Callable[[str, int, int], None]

CONFIDENT = 0.5  # a reference that gives its best class at least this much is sure of it


@dataclass(frozen=True, slots=True)
class Agreement:
    """A plan beside another one, usually of the same network in float32.

    Attributes:
        same: share of samples with the same best class.
        num_confident, same_confident: samples whose best class the other plan gives at least
            CONFIDENT, and the share of the same best class among them.
        expected_change: of top-1, if the other plan's scores are the probabilities that they look
            like: mean of its score of this plan's best class less that of its own. Never above 0;
            an estimate without labels, no measurement.
        top1: of the other plan; None without labels, like the two counts below.
        lost, gained: samples that only the other plan, and that only this one has right.
    """

    same: float
    num_confident: int
    same_confident: float
    expected_change: float
    top1: float | None
    lost: int | None
    gained: int | None

    def text(self) -> str:
        """Two or three lines for people."""
        lines = [
            f"same best class as the other plan: {100 * self.same:.2f} %; "
            f"{100 * self.same_confident:.2f} % of the {self.num_confident} that it gives at least "
            f"{CONFIDENT:g}",
            f"expected change of top-1, were its scores right: {100 * self.expected_change:+.2f} "
            "points (no measurement)",
        ]
        if self.top1 is not None:
            lines.append(
                f"the other plan's top-1: {100 * self.top1:.2f} %; {self.lost} lost, "
                f"{self.gained} gained"
            )
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Figures over all samples.

    Attributes:
        num_samples: how many were run.
        top1, top5: shares of samples whose class is the best, or among the best five; None without
            labels.
        mean_us: mean wall time of one inference, the copies of `execute` included.
        predictions: best class per sample.
        against: beside another plan, None where there is none.
    """

    num_samples: int
    top1: float | None
    top5: float | None
    mean_us: float
    predictions: tuple[int, ...]
    against: Agreement | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def text(self) -> str:
        """A few lines for people."""
        lines = [f"{self.num_samples} samples, {self.mean_us:,.0f} us per inference"]
        if self.top1 is not None and self.top5 is not None:
            right = round(self.top1 * self.num_samples)
            lines = [
                f"top-1 {100 * self.top1:.2f} % ({right} of {self.num_samples}), "
                f"top-5 {100 * self.top5:.2f} %, {self.mean_us:,.0f} us per inference"
            ]
        if self.against is not None:
            lines.append(self.against.text())
        return "\n".join(lines)


def evaluate_plan(
    plan: Plan,
    samples: Iterable[Any],
    labels: Sequence[int] | None,
    *,
    output: str | None = None,
    against: Plan | None = None,
    progress: Progress | None = None,
) -> Accuracy:
    """Run a classifier on samples on this machine.

    Args:
        plan: for this machine, with the classes in one output.
        samples: as many as labels, see `calibration.batches.batched`.
        labels: class per sample; None: no accuracy.
        output: name of the output that holds the scores; None: the only one.
        against: another plan for the same inputs and classes.
        progress: called with a phase's name, samples done and samples in all (0: unknown).

    Raises:
        BuilderError: no such output, a label that is no class, another number of samples than
            labels, or another plan with other inputs or classes.
    """
    with ExitStack() as stack:
        own = stack.enter_context(_Classifier(plan, output))
        other = None if against is None else stack.enter_context(_Classifier(against, None))
        return _evaluated(own, other, samples, labels, progress)


def num_classes_of(plan: Plan, output: str | None = None) -> int:
    """Scores per sample of a classifier's output. Raises BuilderError: no such output."""
    return _Classifier.shape_of(plan, output)[1]


def network_of_plan(plan: Plan) -> Network:
    """A network with the plan's inputs alone, in the shapes of its first profile."""
    network = Network(plan.name)
    shapes = plan.variants[0].profiles[0].shapes
    for binding, shape in zip(plan.bindings, shapes, strict=True):
        if binding.is_input:
            network.add_input(binding.name, shape, binding.dtype)
    return network


class _Classifier:
    def __init__(self, plan: Plan, output: str | None) -> None:
        self.output, self.num_classes = self.shape_of(plan, output)
        self.network = network_of_plan(plan)
        self.inputs = [(t.name, list(t.shape)) for t in self.network.inputs]
        with ExitStack() as loaded:  # unloads the plan when it gets no context
            engine = loaded.enter_context(load_engine(plan))
            self._context = loaded.enter_context(engine.create_context())
            self._loaded = loaded.pop_all()

    def __enter__(self) -> _Classifier:
        return self

    def __exit__(self, *exception: object) -> None:
        """Unload, so that the plan's file can be closed."""
        self._loaded.close()

    @staticmethod
    def shape_of(plan: Plan, output: str | None) -> tuple[str, int]:
        """Name of the output with the scores, and how many it has per sample."""
        name = _score_output(plan, output)
        network = network_of_plan(plan)
        batch = network.inputs[0].shape[0] if network.inputs and network.inputs[0].shape else 1
        shapes = plan.variants[0].profiles[0].shapes
        number = next(i for i, b in enumerate(plan.bindings) if b.name == name and not b.is_input)
        elems = int(np.prod(shapes[number]))
        if elems == 0 or elems % batch:
            raise BuilderError(
                f"output '{name}' of shape {list(shapes[number])} holds no scores for a batch of "
                f"{batch}"
            )
        return name, elems // batch

    def scores(self, arrays: dict[str, Array]) -> Array:
        """Float64 [batch, classes]."""
        found = np.asarray(self._context.execute(arrays)[self.output])
        return found.reshape(-1, self.num_classes).astype(np.float64)


def _evaluated(
    own: _Classifier,
    other: _Classifier | None,
    samples: Iterable[Any],
    labels: Sequence[int] | None,
    progress: Progress | None,
) -> Accuracy:
    if other is not None and (other.inputs, other.num_classes) != (own.inputs, own.num_classes):
        raise BuilderError(
            f"the plans take {own.inputs} and {other.inputs} and give {own.num_classes} and "
            f"{other.num_classes} scores; both must be alike"
        )
    wrong = sorted({y for y in labels or () if not 0 <= y < own.num_classes})
    if wrong:
        raise BuilderError(
            f"class {wrong[0]} is not among the {own.num_classes} of output '{own.output}', 0 to "
            f"{own.num_classes - 1}; --label-offset shifts labels that count from elsewhere"
        )
    scores: list[Array] = []
    reference: list[Array] = []
    done = batches = 0
    seconds = 0.0
    for arrays, count in batched(samples, own.network.inputs):
        start = time.perf_counter()
        rows = own.scores(arrays)
        seconds += time.perf_counter() - start
        batches += 1
        scores.append(_best_five(rows[:count]))
        if other is not None:
            reference.append(_outcome(other.scores(arrays)[:count], scores[-1][:, 0]))
        done += count
        if labels is not None and done > len(labels):
            raise BuilderError(f"there are more samples than the {len(labels)} labels")
        if progress is not None:
            progress("evaluate", done, len(labels) if labels is not None else 0)
    if not done or (labels is not None and done != len(labels)):
        wanted = "at least 1" if labels is None else f"as many as labels, {len(labels)}"
        raise BuilderError(f"{done} samples; expected {wanted}")
    best = np.concatenate(scores)
    truth = None if labels is None else np.asarray(labels, np.int64)
    hits = None if truth is None else best == truth[:, None]
    return Accuracy(
        done,
        None if hits is None else float(hits[:, 0].mean()),
        None if hits is None else float(hits.any(axis=1).mean()),
        1e6 * seconds / batches,
        tuple(best[:, 0].tolist()),
        _agreement(best[:, 0], np.concatenate(reference), truth) if reference else None,
    )


def _best_five(rows: Array) -> Array:
    """Classes [samples, at most 5], the best first, equal scores by number."""
    return np.argsort(-rows, axis=1, kind="stable")[:, :5]


def _outcome(rows: Array, chosen: Array) -> Array:
    """[samples, 3]: best class, its probability, and the probability of the class chosen."""
    probabilities = rows
    if rows.min() < 0.0 or np.abs(rows.sum(axis=1) - 1.0).max() > 0.01:
        raised = np.exp(rows - rows.max(axis=1, keepdims=True))
        probabilities = raised / raised.sum(axis=1, keepdims=True)
    best = _best_five(rows)[:, 0]
    at = np.arange(len(rows))
    return np.stack([best, probabilities[at, best], probabilities[at, chosen]], axis=1)


def _agreement(best: Array, reference: Array, truth: Array | None) -> Agreement:
    other, own_share, chosen_share = reference.T
    is_same = other == best
    is_confident = own_share >= CONFIDENT
    right = other == truth if truth is not None else None
    own_right = best == truth if truth is not None else None
    return Agreement(
        float(is_same.mean()),
        int(is_confident.sum()),
        float(is_same[is_confident].mean()) if is_confident.any() else 1.0,
        float((chosen_share - own_share).mean()),
        None if right is None else float(right.mean()),
        None if right is None or own_right is None else int((right & ~own_right).sum()),
        None if right is None or own_right is None else int((own_right & ~right).sum()),
    )


def _score_output(plan: Plan, output: str | None) -> str:
    outputs = [binding.name for binding in plan.bindings if not binding.is_input]
    if output is None and len(outputs) == 1:
        return outputs[0]
    if output not in outputs:
        raise BuilderError(
            f"{'name the output with the scores' if output is None else f'no output {output!r}'}; "
            f"the plan has {', '.join(outputs)}"
        )
    return output
