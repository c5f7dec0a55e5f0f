"""Selection: every problem gets the tactic that was measured, remembered or predicted fastest."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.codegen.compile_batch import CompileFailure
from builder_host.emit.verification import stored_type
from builder_host.errors import TimingCacheError, UnsupportedError
from builder_host.kernels.choice import FamilyChoice
from builder_host.kernels.family import KernelFamily, Problem, Program, Tactic
from builder_host.measure.base import MeasureJob, Measurer
from builder_host.targets.backend import Backend
from builder_host.tune.timing_cache import Timing, TimingCache, TimingKey

log = logging.getLogger(__name__)

MAX_CANDIDATES = {"cpu": 16, "cuda": 20}
# Families estimated this many times slower than the best are not tried.
_FAMILY_CUTOFF = {"cpu": 5.0, "cuda": 2.5}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One tactic for one problem, with its key in the timing cache."""

    problem: Problem
    family: KernelFamily
    tactic: Tactic
    estimate_us: float
    key: TimingKey

    def program(self, target: Any) -> Program:
        """Source and launches."""
        return self.family.generate(self.problem, self.tactic, target)


@dataclass(frozen=True, slots=True)
class Selection:
    """The candidate chosen of so many; timing is None when it was only predicted."""

    candidate: Candidate
    timing: Timing | None
    num_candidates: int


@dataclass(frozen=True, slots=True)
class TuneSummary:
    """What tuning did: counts of problems, candidates, cache hits, measurements, failures."""

    num_problems: int
    num_candidates: int
    num_cached: int
    num_measured: int
    num_failed: int


@dataclass(frozen=True, slots=True)
class PreparedJobs:
    """Candidates ready to be timed, and those that cannot be.

    Attributes:
        jobs, candidates: in the same order.
        failed: candidate and why.
    """

    jobs: list[MeasureJob]
    candidates: list[Candidate]
    failed: list[tuple[Candidate, Timing]]


class Tuner:
    """Chooses tactics for problems. See `select`."""

    def __init__(
        self,
        choice: FamilyChoice,
        backend: Backend,
        cache: TimingCache,
        measurer: Measurer | None,
        *,
        fingerprint_id: str,
        conditions: str,
        is_strict: bool,
        workspace_limit_bytes: int,
        progress: Callable[[str, int, int], None],
    ) -> None:
        """Without a measurer tactics are predicted; with is_strict a cache miss is an error."""
        self.choice = choice
        self.backend = backend
        self.cache = cache
        self.measurer = measurer
        self.fingerprint_id = fingerprint_id
        self.conditions = conditions
        self.is_strict = is_strict
        self.workspace_limit_bytes = workspace_limit_bytes
        self.progress = progress
        self.summary = TuneSummary(0, 0, 0, 0, 0)

    def candidates(self, problem: Problem) -> list[Candidate]:
        """Tactics worth trying, in the order that breaks ties: families by estimate, then theirs.

        Raises:
            UnsupportedError: no family applies within the workspace limit.
        """
        target = self.choice.target
        ranked = self.choice.ranked(problem)
        if not ranked:
            raise UnsupportedError(f"no kernel family computes {problem.text()}")
        fastest = max(ranked[0][0], 1e-3)
        columns = [
            [
                Candidate(problem, family, tactic, cost, self._key(problem, family, tactic))
                for tactic in family.tactics(problem, target)
            ]
            for cost, family in ranked
            if cost <= fastest * _FAMILY_CUTOFF[self.backend.target_kind]
        ]
        mixed = [c for row in itertools.zip_longest(*columns) for c in row if c is not None]
        return mixed[: MAX_CANDIDATES[self.backend.target_kind]]

    def _key(self, problem: Problem, family: KernelFamily, tactic: Tactic) -> TimingKey:
        return TimingKey(
            self.fingerprint_id,
            problem.text(),
            tactic.text,
            family.template_hash,
            self.backend.identity,
            self.conditions,
        )

    def rows(self, problems: Iterable[Problem]) -> dict[str, list[Candidate]]:
        """Candidates of every distinct problem, by `Problem.text()`."""
        distinct = {problem.text(): problem for problem in problems}
        return {text: self.candidates(problem) for text, problem in distinct.items()}

    def missing(self, rows: Mapping[str, Sequence[Candidate]]) -> list[Candidate]:
        """Candidates without a timing in the cache."""
        return [c for row in rows.values() for c in row if self.cache.get(c.key) is None]

    def select(self, problems: Iterable[Problem]) -> dict[str, Selection]:
        """Choose a tactic for every distinct problem; the result is keyed by `Problem.text()`.

        Raises:
            TimingCacheError: strict, and the cache lacks a candidate.
            UnsupportedError: nothing computes a problem, or every candidate failed.
        """
        rows = self.rows(problems)
        flat = [c for row in rows.values() for c in row]
        missing = self.missing(rows)
        if missing and self.is_strict:
            raise TimingCacheError(
                f"strict build: the timing cache lacks {len(missing)} of {len(flat)} timings, "
                f"the first is {missing[0].tactic.text} for {missing[0].problem.text()}; "
                "build once without --strict-cache on the target, or merge a cache that has them"
            )
        if missing and self.measurer is not None:
            self._measure(missing, self.measurer)
        failed = sum(1 for c in flat if (t := self.cache.get(c.key)) and t.median_us is None)
        self.summary = TuneSummary(
            len(rows),
            len(flat),
            len(flat) - len(missing),
            len(missing) if self.measurer is not None else 0,
            failed,
        )
        return {text: self._best(row) for text, row in rows.items()}

    def _best(self, row: Sequence[Candidate]) -> Selection:
        timed = [(self.cache.get(c.key), order, c) for order, c in enumerate(row)]
        good = [
            (timing.median_us, order, timing, c)
            for timing, order, c in timed
            if timing is not None and timing.median_us is not None
        ]
        if good:
            _, _, timing, candidate = min(good, key=lambda item: item[:2])
            return Selection(candidate, timing, len(row))
        untried = [c for timing, _, c in timed if timing is None]
        if not untried:
            reasons = {timing.error for timing, _, _ in timed if timing is not None}
            raise UnsupportedError(
                f"every candidate failed for {row[0].problem.text()}: {'; '.join(sorted(reasons))}"
            )
        return Selection(untried[0], None, len(row))

    def alternatives(self, problem: Problem, tolerance: float) -> list[Selection]:
        """Tactics at most `tolerance` times slower than the best, by time or by estimate."""
        row = self.candidates(problem)
        best = self._best(row)
        if best.timing is None or best.timing.median_us is None:
            limit = best.candidate.estimate_us * tolerance
            return [
                Selection(c, None, len(row))
                for c in row
                if c.estimate_us <= limit and self.cache.get(c.key) is None
            ]
        limit = best.timing.median_us * tolerance
        timed = [(self.cache.get(c.key), c) for c in row]
        close = [
            (timing.median_us, order, Selection(c, timing, len(row)))
            for order, (timing, c) in enumerate(timed)
            if timing is not None and timing.median_us is not None and timing.median_us <= limit
        ]
        return [selection for _, _, selection in sorted(close, key=lambda item: item[:2])]

    def prepare(self, missing: Sequence[Candidate]) -> PreparedJobs:
        """Generate and compile candidates; one that does not compile is a failed timing."""
        target = self.choice.target
        groups: dict[str, int] = {}
        programs: list[Program] = []
        for number, candidate in enumerate(missing):
            self.progress("generate", number, len(missing))
            programs.append(candidate.program(target))
        self.progress("compile", 0, len(missing))
        objects = self.backend.compile_objects([p.source for p in programs])
        prepared = PreparedJobs([], [], [])
        for candidate, program, compiled in zip(missing, programs, objects, strict=True):
            error = self._refusal(candidate, program, compiled)
            if error:
                prepared.failed.append((candidate, Timing(None, error=error)))
                continue
            job = MeasureJob(
                str(compiled.path),
                program.launches,
                argument_sizes(candidate, program, target),
                groups.setdefault(candidate.problem.text(), len(groups)),
            )
            prepared.jobs.append(job)
            prepared.candidates.append(candidate)
        return prepared

    def _refusal(self, candidate: Candidate, program: Program, compiled: Any) -> str:
        if isinstance(compiled, CompileFailure):
            log.warning("%s does not compile: %s", candidate.tactic.text, compiled.error)
            return "does not compile"
        if program.workspace_bytes > self.workspace_limit_bytes:
            return (
                f"needs {program.workspace_bytes} B of workspace, "
                f"the limit is {self.workspace_limit_bytes} B"
            )
        problem: str = self.backend.launch_problem(program, compiled)
        return problem

    def _measure(self, missing: Sequence[Candidate], measurer: Measurer) -> None:
        prepared = self.prepare(missing)
        for candidate, timing in prepared.failed:
            self.cache.put(candidate.key, timing)
        if prepared.jobs:
            num_workers = missing[0].problem.num_workers
            timings = measurer.measure(prepared.jobs, num_workers)
            for candidate, timing in zip(prepared.candidates, timings, strict=True):
                self.cache.put(candidate.key, timing)


def _zero_constants(problem: Problem) -> list[npt.NDArray[Any] | None]:
    """Zeros in the shape of each constant, without memory of their own."""
    return [
        np.broadcast_to(np.zeros((), stored_type(layout.dtype)), layout.shape) if constant else None
        for layout, constant in zip(problem.inputs, problem.is_constant, strict=True)
    ]


def argument_sizes(candidate: Candidate, program: Program, target: Any) -> tuple[int, ...]:
    """Size in bytes of every argument of a program: inputs (packed), outputs, workspace."""
    problem = candidate.problem
    zeros = _zero_constants(problem)
    packed = candidate.family.pack(problem, candidate.tactic, target, zeros)
    sizes = [
        layout.stored_bytes if array is None else array.nbytes
        for layout, array in zip(problem.inputs, packed, strict=True)
    ]
    sizes += [layout.stored_bytes for layout in problem.outputs]
    if program.workspace_bytes:
        sizes.append(program.workspace_bytes)
    return tuple(sizes)
