"""Many sources through one compiler: what is in the store is taken from there, equal ones once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from builder_host.codegen.artifacts import ArtifactStore

Job = TypeVar("Job")
Outcome = TypeVar("Outcome")
Compiled = TypeVar("Compiled")


@dataclass(frozen=True, slots=True)
class CompileFailure:
    """A source that does not compile; a result, not a crash. `error` holds command and log."""

    error: str


@dataclass(frozen=True, slots=True)
class CompileSteps(Generic[Job, Outcome, Compiled]):
    """What a toolchain does for one source.

    Attributes:
        key: content hash of the source and all else that shapes the result.
        load: the result that is in the store under a key, or None.
        job: what a worker is sent.
        run: compiles a job, in the worker of any executor; a function of a module.
        keep: puts what came back into the store.
    """

    key: Callable[[str], str]
    load: Callable[[str], Compiled | CompileFailure | None]
    job: Callable[[str], Job]
    run: Callable[[Job], Outcome]
    keep: Callable[[str, Job, Outcome], Compiled | CompileFailure]


def compile_sources(
    sources: Sequence[str],
    steps: CompileSteps[Job, Outcome, Compiled],
    executor: Executor | None,
    num_threads: int,
) -> list[Compiled | CompileFailure]:
    """Results of all sources, in order.

    Args:
        sources: texts; equal ones are compiled once.
        steps: of the toolchain.
        executor: runs the compilations; None: own threads.
        num_threads: how many of these at most.
    """
    keys = [steps.key(source) for source in sources]
    found: dict[str, Compiled | CompileFailure] = {}
    pending: dict[str, Job] = {}
    for key, source in zip(keys, sources, strict=True):
        if key in found or key in pending:
            continue
        known = steps.load(key)
        if known is None:
            pending[key] = steps.job(source)
        else:
            found[key] = known
    outcomes = _outcomes(list(pending.values()), steps.run, executor, num_threads)
    for (key, job), outcome in zip(pending.items(), outcomes, strict=True):
        found[key] = steps.keep(key, job, outcome)
    return [found[key] for key in keys]


def refused(
    store: ArtifactStore, key: str, files: dict[str, bytes | str], command: str, log: str
) -> CompileFailure:
    """A source that the compiler refused, kept in the store for whoever looks for the reason."""
    folder = store.put(key, files, is_failed=True)
    return CompileFailure(
        f"the compiler refused a generated source, kept in {folder}\n{command}\n{log}"
    )


def _outcomes(
    jobs: Sequence[Job],
    run: Callable[[Job], Outcome],
    executor: Executor | None,
    num_threads: int,
) -> list[Outcome]:
    if executor is not None:
        return list(executor.map(run, jobs))
    if len(jobs) < 2:
        return [run(job) for job in jobs]
    with ThreadPoolExecutor(min(num_threads, len(jobs))) as threads:
        return list(threads.map(run, jobs))
