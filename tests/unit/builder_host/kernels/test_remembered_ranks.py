"""Ranks of kernel families are those of the build before, and are worked out where it had none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.convolutions import Case, problem_of
from support.cpu_kernels import AVX2, AVX512

from builder_host.codegen.artifacts import ArtifactStore
from builder_host.kernels import remembered_ranks
from builder_host.kernels.choice import FamilyChoice
from builder_host.kernels.family import KernelFamily
from builder_host.kernels.remembered_ranks import RememberedRanks
from builder_host.registry import kernel_families

PROBLEM = problem_of(Case(16, 32, 14, 14), AVX512)
OTHER = problem_of(Case(16, 48, 14, 14), AVX512)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


@pytest.fixture
def estimated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Texts of problems that were estimated, as long as the test runs."""
    asked: list[str] = []
    real = FamilyChoice._estimated

    def counted(self, problem):
        asked.append(problem.text())
        return real(self, problem)

    monkeypatch.setattr(FamilyChoice, "_estimated", counted)
    return asked


def families() -> tuple[KernelFamily, ...]:
    return tuple(kernel_families("cpu"))


def test_a_second_build_reads_what_the_first_worked_out(store, estimated):
    expected = FamilyChoice(families(), AVX512).ranked(PROBLEM)
    assert len(expected) > 1
    ranks = RememberedRanks(store, AVX512, ["net"])
    assert FamilyChoice(families(), AVX512, ranks).ranked(PROBLEM) == expected
    ranks.save()
    estimated.clear()
    again = RememberedRanks(store, AVX512, ["net"])
    choice = FamilyChoice(families(), AVX512, again)
    assert choice.ranked(PROBLEM) == expected
    assert estimated == []
    choice.ranked(OTHER)
    assert estimated == [OTHER.text()]
    again.save()
    both = FamilyChoice(families(), AVX512, RememberedRanks(store, AVX512, ["net"]))
    assert both.ranked(PROBLEM) == expected
    both.ranked(OTHER)
    assert len(estimated) == 1


def test_other_targets_code_and_networks_are_estimated(store, estimated, monkeypatch):
    ranks = RememberedRanks(store, AVX512, ["net"])
    FamilyChoice(families(), AVX512, ranks).ranked(PROBLEM)
    ranks.save()
    estimated.clear()
    for target, network in ((AVX2, "net"), (AVX512, "other")):
        remembered = RememberedRanks(store, target, [network])
        FamilyChoice(families(), target, remembered).ranked(PROBLEM)
    monkeypatch.setattr(remembered_ranks, "_code_hash", lambda: "another release")
    FamilyChoice(families(), AVX512, RememberedRanks(store, AVX512, ["net"])).ranked(PROBLEM)
    assert estimated == [PROBLEM.text()] * 3


@pytest.mark.parametrize("content", ["", "[", "[1]", '{"x": 1}', '{"x": [["a", "b"]]}'])
def test_a_damaged_file_is_replaced(store, estimated, content):
    ranks = RememberedRanks(store, AVX512, ["net"])
    expected = FamilyChoice(families(), AVX512, ranks).ranked(PROBLEM)
    ranks.save()
    (path,) = store.root.rglob("ranks.json")
    path.write_text(content)
    estimated.clear()
    repaired = RememberedRanks(store, AVX512, ["net"])
    assert FamilyChoice(families(), AVX512, repaired).ranked(PROBLEM) == expected
    assert estimated == [PROBLEM.text()]
    repaired.save()
    FamilyChoice(families(), AVX512, RememberedRanks(store, AVX512, ["net"])).ranked(PROBLEM)
    assert len(estimated) == 1


def test_plugins_are_estimated_every_time(store, estimated):
    plugin = replace(PROBLEM, kind="plugin")
    for _ in range(2):
        ranks = RememberedRanks(store, AVX512, ["net"])
        FamilyChoice((), AVX512, ranks).ranked(plugin)
        ranks.save()
    assert estimated == [plugin.text()] * 2
    assert not list(store.root.rglob("ranks.json"))
