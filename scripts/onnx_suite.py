#!/usr/bin/env python3
"""Run the onnx package's conformance suites as plans and print the shares.

scripts/onnx_suite.py [--suite NAME ...] [--filter REGEX] [--target TARGET] [--jobs N] [--save FILE]

The scope is the table in tests/conformance/onnx_node_scope.md. Exit status 1: a suite falls below
the floor, or a case outside that page's list of differences fails.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import os
import re
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.onnx_suite import CaseResult, grouped, run_cases  # noqa: E402
from support.onnx_suite_cases import (  # noqa: E402
    SUITES,
    SuiteCase,
    known_differences,
    suite_cases,
)
from support.onnx_suite_report import (  # noqa: E402
    save_results,
    share,
    summary,
    table_by_operator,
)

import builder_host as bh  # noqa: E402
from builder_host.builder import resolve_target  # noqa: E402

FLOOR = 0.95
MODEL_FIELDS = ("cpu.model", "cuda.name")


def run_group(group: list[SuiteCase], config: bh.BuilderConfig) -> list[CaseResult]:
    """One group in a worker process."""
    logging.disable(logging.WARNING)  # default batches and the like, once per case
    warnings.simplefilter("ignore")  # expected values overflow on purpose
    return run_cases(group, config)


def main() -> int:
    """Parse the options, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", action="append", choices=SUITES, help="default: all")
    parser.add_argument("--filter", default="", help="regular expression of case names")
    parser.add_argument("--target", default="host-cpu", help="whose device is in this machine")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--artifacts", help="store of compiled code; default: a temporary one")
    parser.add_argument("--save", type=Path, help="write results here, for support_matrix.py")
    options = parser.parse_args()
    suites = options.suite or SUITES
    cases = [c for s in suites for c in suite_cases(s) if re.search(options.filter, c.name)]
    groups = grouped(cases)
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = options.artifacts or stack.enter_context(tempfile.TemporaryDirectory())
        config = bh.BuilderConfig(
            target=options.target,
            measure="none",
            num_threads=1,
            num_jobs=1,
            is_checked=False,
            artifact_dir=folder,
        )
        fork = multiprocessing.get_context("fork")
        pool = stack.enter_context(ProcessPoolExecutor(options.jobs, mp_context=fork))
        found: dict[tuple[str, str], CaseResult] = {}
        for done in pool.map(run_group, groups, [config] * len(groups)):
            found |= {(r.suite, r.name): r for r in done}
            seconds = time.monotonic() - start
            print(f"{len(found)} of {len(cases)}, {seconds:.0f} s", file=sys.stderr, flush=True)
    results = [found[c.suite, c.name] for c in cases]
    print(table_by_operator(cases, results))
    print(summary(results))
    print(f"{len(cases)} cases in {time.monotonic() - start:.0f} s")
    if options.save is not None:
        fingerprint, _ = resolve_target(options.target)
        kind = fingerprint.device_kind
        model = next((v for k, v in fingerprint.fields.items() if k in MODEL_FIELDS), "")
        save_results(options.save, kind, model, cases, results)
    expected = known_differences()
    new = [r.name for r in results if r.outcome == "failed" and r.name not in expected]
    low = [s for s in suites if _below(FLOOR, [r for r in results if r.suite == s])]
    if new:
        print(f"{len(new)} failures are not in the list of known differences: {', '.join(new)}")
    if low:
        print(f"below {FLOOR:.0%} of what is in scope: {', '.join(low)}")
    return 1 if new or low else 0


def _below(floor: float, results: list[CaseResult]) -> bool:
    right, in_scope = share(results)
    return in_scope > 0 and right / in_scope < floor


if __name__ == "__main__":
    raise SystemExit(main())
