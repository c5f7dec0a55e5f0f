"""What tests are told when an emulated runtime does not answer; needs no emulator."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time

import numpy as np
import pytest
from support.emulated_runtime import EmulatedContext

HALF_AN_ANSWER = "import sys; sys.stdout.buffer.write((100).to_bytes(8, 'little') + b'half')"


@contextlib.contextmanager
def running(*command: str, answer_s: float):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        try:
            yield EmulatedContext(process, answer_s)
        finally:
            process.kill()


@pytest.mark.parametrize("size", [1, 1_000_000])  # the second fills the pipe: the write hangs
def test_a_runtime_that_hangs_is_ended(size):
    began = time.monotonic()
    with (
        running("sleep", "1000", answer_s=0.1) as context,
        pytest.raises(AssertionError, match=r"gave no answer in 0\.1 s"),
    ):
        context.execute({"x": np.zeros(size, np.float32)})
    assert time.monotonic() - began < 500


def test_a_runtime_that_ends_within_its_answer_is_named():
    with (
        running(sys.executable, "-c", HALF_AN_ANSWER, answer_s=500) as context,
        pytest.raises(AssertionError, match="ended: status 0"),
    ):
        context.execute({"x": np.zeros(1, np.float32)})
