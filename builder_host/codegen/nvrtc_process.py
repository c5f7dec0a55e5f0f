"""Worker processes that hold one libnvrtc each, kept for the next compilation.

Every worker compiles one source at a time; so many run at once as threads ask. Workers belong to
the process that started them: after a fork the child starts its own.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from builder_host.codegen import nvrtc_worker
from builder_host.errors import CompileError

COMPILE_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class NvrtcLibrary:
    """Paths of a libnvrtc and its builtins, and the version that it must say it is."""

    library: str
    builtins: str
    version: tuple[int, int]


@dataclass(frozen=True, slots=True)
class NvrtcRequest:
    """One compilation.

    Attributes:
        source: CUDA C++ text.
        architecture: `sm_87` for a cubin, `compute_53` for PTX.
        options: of the compiler, without the architecture.
        headers: texts of headers that are in no folder, by the name to include.
    """

    source: str
    architecture: str
    options: tuple[str, ...]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NvrtcReply:
    """What the compiler says. `code` is empty when the source was refused."""

    code: bytes
    log: str


class NvrtcWorker:
    """One running worker; not for use by two threads at once."""

    def __init__(self, library: NvrtcLibrary) -> None:
        """Start a worker.

        Raises:
            CompileError: it does not start, or the library is another version than expected.
        """
        self._has_timed_out = False
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        command = [sys.executable, "-I", nvrtc_worker.__file__, library.library, library.builtins]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._messages
        )
        hello = self._receive(COMPILE_TIMEOUT_S)
        version = tuple(hello[0].get("version", ())) if hello else ()
        if version != library.version:
            detail = hello[0].get("error") if hello else self._last_words()
            self.close()
            raise CompileError(
                f"{library.library}: expected NVRTC {'.'.join(map(str, library.version))}, found "
                f"{'.'.join(map(str, version)) or 'none'}: {detail or 'no message'}; run: edgeplan "
                f"toolchain install {'.'.join(map(str, library.version))} --force"
            )

    @property
    def has_timed_out(self) -> bool:
        """Whether the process was ended because a compilation took too long."""
        return self._has_timed_out

    @property
    def is_running(self) -> bool:
        """Whether the process can take another request."""
        return self._process.poll() is None

    def compile(
        self, request: NvrtcRequest, timeout_s: float = COMPILE_TIMEOUT_S
    ) -> NvrtcReply | None:
        """Compile one source; None when the worker ended on the way: close it, start another."""
        header = {
            "architecture": request.architecture,
            "options": list(request.options),
            "headers": dict(request.headers),
        }
        stdin = self._process.stdin
        try:
            if stdin is not None:
                nvrtc_worker.write_frame(stdin, header, request.source.encode())
        except (BrokenPipeError, ConnectionResetError):
            return None
        frame = self._receive(timeout_s)
        return NvrtcReply(frame[1], frame[0]["log"]) if frame is not None else None

    def obituary(self) -> str:
        """How the worker ended and the last that it said; call it after `compile` gave None."""
        status = self._process.wait()
        if self._has_timed_out:
            return "the compiler was stopped because it took too long"
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return f"the compiler's process ended with {how}: {self._last_words() or 'no message'}"

    def end(self) -> None:
        """End the process; `obituary` can still be asked."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the worker."""
        self.end()
        for stream in (self._process.stdin, self._process.stdout, self._messages):
            if stream is not None:
                with contextlib.suppress(OSError):  # what was not written is of no interest
                    stream.close()

    def _receive(self, timeout_s: float) -> tuple[dict[str, Any], bytes] | None:
        stdout = self._process.stdout
        if stdout is None:
            return None
        timer = threading.Timer(timeout_s, self._stop)
        timer.daemon = True
        timer.start()
        try:
            return nvrtc_worker.read_frame(stdout)
        finally:
            timer.cancel()

    def _stop(self) -> None:
        self._has_timed_out = True
        self._process.kill()

    def _last_words(self) -> str:
        self._messages.seek(0)
        return self._messages.read().decode(errors="replace").strip()[-2000:]


_idle: dict[NvrtcLibrary, list[NvrtcWorker]] = {}
_abandoned: list[object] = []  # workers of a parent process, kept so that nothing closes them
_lock = threading.Lock()


def compile_source(
    library: NvrtcLibrary, request: NvrtcRequest, timeout_s: float = COMPILE_TIMEOUT_S
) -> NvrtcReply:
    """Compile in an idle worker, or in a new one.

    A worker that ends on a source is replaced and the source tried once more, since what came
    before may have harmed it; a source that ends two workers is refused with their last words.
    One that takes longer than `timeout_s` is refused at once.

    Raises:
        CompileError: no worker can be started.
    """
    for attempt in (1, 2):
        with _borrowed(library, is_fresh=attempt == 2) as worker:
            reply = worker.compile(request, timeout_s)
            if reply is not None:
                return reply
            message = worker.obituary()
            if worker.has_timed_out:
                break
    return NvrtcReply(b"", f"{message}\n")


def close_workers() -> None:
    """End all idle workers of this process."""
    with _lock:
        workers = [worker for idle in _idle.values() for worker in idle]
        _idle.clear()
    for worker in workers:
        worker.close()


@contextlib.contextmanager
def _borrowed(library: NvrtcLibrary, *, is_fresh: bool) -> Iterator[NvrtcWorker]:
    worker: NvrtcWorker | None = None
    if not is_fresh:
        with _lock:
            idle = _idle.get(library)
            worker = idle.pop() if idle else None
    if worker is None:
        worker = NvrtcWorker(library)
    is_kept = False
    try:
        yield worker
        is_kept = worker.is_running
    finally:
        if is_kept:
            with _lock:
                _idle.setdefault(library, []).append(worker)
        else:
            worker.close()


def _forget_workers() -> None:
    global _lock
    _abandoned.append(dict(_idle))
    _idle.clear()
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_workers)
atexit.register(close_workers)
