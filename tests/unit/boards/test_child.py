"""Child processes of the agent that end otherwise than they should."""

from __future__ import annotations

import select
import sys
import time

import pytest

from boards.agent.child import Child, ChildEnd


@pytest.fixture
def ended(tmp_path, monkeypatch):
    """Runs a shell script in the place of the worker; returns how it ended."""

    def run(script: str) -> ChildEnd:
        program = tmp_path / "python"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        ends: list[ChildEnd] = []
        child = Child({}, lambda _: None, ends.append, silence_s=60, memory_bytes=1 << 30)
        limit = time.monotonic() + 120
        try:
            while not ends:
                assert time.monotonic() < limit
                select.select([child.fd], [], [], 0.2)
                child.receive()
                child.tick(time.monotonic())
        finally:
            child.close()
        return ends[0]

    return run


def test_one_that_closes_its_answers_and_goes_on_does_not_hold_the_agent(ended):
    end = ended("exec >&- 2>&-; exec sleep 60")
    assert end.status == -9
    assert end.reason == "it closed its answers and went on"


def test_one_that_answers_without_end_is_stopped(ended):
    end = ended("exec tr '\\0' x </dev/zero")
    assert end.status == -9
    assert end.reason == "it answered without end"


def test_one_that_ends_by_itself_has_no_reason(ended):
    end = ended("echo last words >&2; exit 7")
    assert (end.status, end.reason, end.last_words) == (7, "", "last words")
