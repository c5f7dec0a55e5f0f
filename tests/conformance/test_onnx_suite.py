"""The onnx package's own suites as plans on the CPU.

By default one small case per operator; all of them behind `slow`. `scripts/onnx_suite.py` prints
the shares; the scope and the known differences are in `onnx_node_scope.md`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pytest
from support.onnx_suite import CaseResult, grouped, run_cases
from support.onnx_suite_cases import (
    SUITES,
    SuiteCase,
    known_differences,
    scope_rules,
    suite_cases,
)
from support.onnx_suite_report import share, summary

import builder_host as bh


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> bh.BuilderConfig:
    """One worker, tactics by the cost model, compiled code kept for the session."""
    return bh.BuilderConfig(
        measure="none",
        num_threads=1,
        is_checked=False,
        artifact_dir=tmp_path_factory.mktemp("onnx"),
    )


def results_of(cases: Sequence[SuiteCase], config: bh.BuilderConfig) -> list[CaseResult]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # expected values overflow on purpose
        return [r for group in grouped(cases) for r in run_cases(group, config)]


def unexpected(results: Sequence[CaseResult]) -> dict[str, str]:
    known = known_differences()
    return {r.name: r.detail for r in results if r.outcome == "failed" and r.name not in known}


def size(case: SuiteCase) -> tuple[int, int]:
    """Small ones first: nodes, then elements of tensors."""
    tensors = [v for v in case.inputs if isinstance(v, np.ndarray)]
    return len(case.model.graph.node), sum(int(v.size) for v in tensors)


def one_case_per_operator() -> list[SuiteCase]:
    """For each operator in scope the smallest case that runs it alone."""
    rules = scope_rules()
    chosen: dict[str, SuiteCase] = {}
    for case in sorted(suite_cases("node"), key=size):
        if len(case.operators) == 1 and not any(r.applies(case) for r in rules):
            chosen.setdefault(case.operators[0], case)
    return list(chosen.values())


def test_one_case_per_operator(config: bh.BuilderConfig) -> None:
    cases = [c for c in one_case_per_operator() if c.name not in known_differences()]
    assert len(cases) > 150
    results = results_of(cases, config)
    assert unexpected(results) == {}


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_whole_suite(
    suite: str, config: bh.BuilderConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    results = results_of(suite_cases(suite), config)
    with capsys.disabled():
        print("\n" + summary(results))
    assert unexpected(results) == {}
    right, in_scope = share(results)
    assert right >= 0.95 * in_scope
    stale = known_differences().keys() & {r.name for r in results if r.outcome != "failed"}
    assert stale == set()


def test_every_row_of_the_scope_page_names_something() -> None:
    cases = [case for suite in SUITES for case in suite_cases(suite)]
    assert [r for r in scope_rules() if not any(r.applies(c) for c in cases)] == []
    assert known_differences().keys() <= {case.name for case in cases}
