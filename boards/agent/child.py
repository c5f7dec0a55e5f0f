"""Child processes of the agent: started, watched, limited, and ended."""

from __future__ import annotations

import contextlib
import json
import logging
import mmap
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from boards.agent.worker import PROGRESS

log = logging.getLogger(__name__)

_MAX_LINE_BYTES = 4 << 20  # no longer message could be sent
_END_WAIT_S = 1.0  # from the end of its answers to its own
_STDERR_BYTES = 4000
_BUSY_SHARE = 0.5  # of its time limit: with less processor time it counts as starved, or waiting
_PATIENCE = 5  # times the limit that such a process may take

OnAnswer = Callable[[Mapping[str, Any]], None]
OnEnd = Callable[["ChildEnd"], None]


class ChildEnd:
    """How a child process ended.

    Attributes:
        status: exit status, negative: minus the signal's number.
        reason: in words, empty for a regular end.
        candidate: index of the candidate that was at work, -1 for none.
        last_words: end of what it wrote to standard error.
    """

    def __init__(self, status: int, reason: str, candidate: int, last_words: str) -> None:
        """Take the facts."""
        self.status = status
        self.reason = reason
        self.candidate = candidate
        self.last_words = last_words


class Child:
    """One task in a process of its own, with a limit on its silence and on its memory.

    Attributes:
        fd: descriptor of its answers, to wait on.
    """

    def __init__(
        self,
        task: Mapping[str, Any],
        on_answer: OnAnswer,
        on_end: OnEnd,
        *,
        silence_s: float,
        memory_bytes: int,
        candidate_s: float | None = None,
    ) -> None:
        """Start the process.

        Args:
            task: for `boards.agent.worker`.
            on_answer: called with each answer.
            on_end: called once, last.
            silence_s: longest time between two signs of life.
            memory_bytes: most resident memory.
            candidate_s: as silence_s, while a candidate is at work. A process that gets little
                processor time may take five times as long.
        """
        self._on_answer = on_answer
        self._on_end = on_end
        self._silence_s = silence_s
        self._candidate_s = silence_s if candidate_s is None else candidate_s
        self._memory_bytes = memory_bytes
        self._reason = ""
        self._token = secrets.token_hex(16).encode()
        self._pending = bytearray()
        self._progress_file = tempfile.NamedTemporaryFile(prefix="edgeplan-")  # noqa: SIM115
        self._progress_file.truncate(PROGRESS.size)
        self._progress = mmap.mmap(self._progress_file.fileno(), PROGRESS.size)
        self._progress[:] = PROGRESS.pack(-1, 0)
        self._seen = bytes(self._progress)
        self._heard_at = time.monotonic()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in _finish
        self._process = subprocess.Popen(
            [sys.executable, "-m", "boards.agent.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,
            cwd="/",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            extra = {"progress": self._progress_file.name, "token": self._token.decode()}
            line = json.dumps({**task, **extra}) + "\n"
            self._process.stdin.write(line.encode())
            self._process.stdin.close()
        self.fd = self._process.stdout.fileno()
        os.set_blocking(self.fd, False)
        self._is_finished = False
        self._cpu_at = 0.0

    def _hear(self, now: float) -> None:
        self._heard_at = now
        self._cpu_at = self._cpu_s()

    def _cpu_s(self) -> float:
        """Processor time that it has used."""
        try:
            text = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii")
        except OSError:
            return 0.0
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def receive(self) -> None:
        """Take what it has answered."""
        if self._is_finished:
            return
        try:
            data = os.read(self.fd, 1 << 20)
        except BlockingIOError:
            return
        if not data:
            self._finish()
            return
        self._pending += data
        *lines, rest = bytes(self._pending).split(b"\n")
        self._pending = bytearray(rest)
        if len(rest) > _MAX_LINE_BYTES:
            self.kill("it answered without end")
            return
        for line in lines:
            # native code can write to any descriptor: only what bears the token is an answer
            _, token, answer = line.partition(self._token)
            if token:
                self._hear(time.monotonic())
                self._take(answer)

    def _take(self, answer: bytes) -> None:
        try:
            self._on_answer(json.loads(answer))
        except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
            self.kill(f"it answered with nonsense: {error!r}")

    def tick(self, now: float) -> None:
        """Look at its limits."""
        if self._is_finished:
            return
        if self._process.poll() is not None:
            # what it has left behind may hold the pipe open
            self.kill("")
            self.receive()
            self._finish()
            return
        if self._reason:
            return
        progress = bytes(self._progress)
        if progress != self._seen:
            self._seen = progress
            self._hear(now)
        is_at_candidate = PROGRESS.unpack(progress)[0] >= 0
        limit_s = self._candidate_s if is_at_candidate else self._silence_s
        # on a busy board a good candidate may wait for its turn: then it has used little time
        is_starved = self._cpu_s() - self._cpu_at < _BUSY_SHARE * limit_s
        if now - self._heard_at > limit_s * (_PATIENCE if is_starved else 1):
            self.kill(f"it did not finish within {limit_s:g} s")
            return
        resident = _resident_bytes(self._process.pid)
        if resident > self._memory_bytes:
            self.kill(
                f"it took {resident >> 20:,} MiB of memory, {self._memory_bytes >> 20:,} MiB are "
                "allowed"
            )

    def kill(self, reason: str) -> None:
        """End it and all that it started."""
        self._reason = self._reason or reason
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End it without a word to anybody."""
        self._on_end = _ignore
        if not self._is_finished:
            self.kill("the agent ends")
            self._process.wait()
            self._finish()

    def _finish(self) -> None:
        if self._is_finished:
            return
        self._is_finished = True
        try:
            status = self._process.wait(_END_WAIT_S)
        except subprocess.TimeoutExpired:
            self.kill("it closed its answers and went on")
            status = self._process.wait()
        self.kill("")  # what it left behind
        assert self._process.stdout is not None
        self._process.stdout.close()
        end = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, end - _STDERR_BYTES))
        words = self._stderr.read().decode("utf-8", "replace").strip()
        self._stderr.close()
        candidate = PROGRESS.unpack(self._progress)[0]
        self._progress.close()
        self._progress_file.close()
        if not self._reason and status < 0:
            self._reason = f"it was ended by {_signal_name(-status)}"
        self._on_end(ChildEnd(status, self._reason, candidate, words))


def _ignore(_end: ChildEnd) -> None:
    pass


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _resident_bytes(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    found = re.search(r"^VmRSS:\s+(\d+) kB", text, re.M)
    return int(found[1]) * 1024 if found else 0
