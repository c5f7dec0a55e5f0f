"""The runtime of an arm64 system on this machine (qemu-user): plans for aarch64 run by it."""

from __future__ import annotations

import contextlib
import io
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from support.emulated_board import SCRIPTS

ANSWER_S = 600.0
"""Longest time of loading and one inference: minutes on a loaded machine, where it hangs never."""
_END_S = 120.0

_SERVER = """
import io, struct, sys
import numpy as np
import runtime_edge
with runtime_edge.load(sys.argv[1]) as engine:
    with engine.create_context() as context:
        while True:
            head = sys.stdin.buffer.read(8)
            if not head:
                break
            data = io.BytesIO(sys.stdin.buffer.read(int.from_bytes(head, "little")))
            results = context.execute(dict(np.load(data)))
            out = io.BytesIO()
            np.savez(out, **{name: np.array(values) for name, values in results.items()})
            answer = out.getvalue()
            sys.stdout.buffer.write(len(answer).to_bytes(8, "little") + answer)
            sys.stdout.buffer.flush()
"""


class EmulatedContext:
    """An execution context in an emulated process."""

    def __init__(self, process: subprocess.Popen[bytes], answer_s: float = ANSWER_S) -> None:
        """Talk to a process that was started by `emulated_context`."""
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._answer_s = answer_s
        self._in: BinaryIO = process.stdin  # type: ignore[assignment]
        self._out: BinaryIO = process.stdout  # type: ignore[assignment]

    def execute(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name; a process that gives none in time is ended, and the test fails."""
        buffer = io.BytesIO()
        np.savez(buffer, **inputs)
        data = buffer.getvalue()
        is_late = threading.Event()

        def end() -> None:
            is_late.set()
            self._process.kill()

        timer = threading.Timer(self._answer_s, end)
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError):  # why it ended is said below
                self._in.write(len(data).to_bytes(8, "little") + data)
                self._in.flush()
            size = int.from_bytes(self._out.read(8), "little")
            answer = self._out.read(size)
        finally:
            timer.cancel()
        assert not is_late.is_set(), f"the emulated runtime gave no answer in {self._answer_s} s"
        if not size or len(answer) < size:
            raise AssertionError(f"the emulated runtime ended: status {self._process.wait(_END_S)}")
        return dict(np.load(io.BytesIO(answer)))


@contextlib.contextmanager
def emulated_context(plan: Path) -> Iterator[EmulatedContext]:
    """Load a plan, canary included, and make an execution context."""
    process = subprocess.Popen(
        [SCRIPTS / "run", "-c", _SERVER, plan], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield EmulatedContext(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(_END_S) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(_END_S)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
