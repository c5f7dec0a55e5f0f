"""Progress of a build: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

Progress = Callable[[str, int, int], None]
_LINE_EVERY_S = 5.0


@contextmanager
def progress_display(stream: TextIO) -> Iterator[Progress]:
    """A progress function that shows what it is told on `stream`."""
    if not stream.isatty():
        yield _PlainLines(stream)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description:9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with RichProgress(*columns, console=Console(file=stream), transient=True) as display:
        task = display.add_task("", total=1)

        def show(phase: str, done: int, total: int) -> None:
            display.update(task, description=phase, completed=done, total=total)

        yield show


class _PlainLines:
    """A line when the phase changes, and every few seconds within one."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._phase = ""
        self._start = self._last = time.monotonic()

    def __call__(self, phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if phase == self._phase and now - self._last < _LINE_EVERY_S:
            return
        self._phase, self._last = phase, now
        self._stream.write(f"[{now - self._start:6.1f} s] {phase} {done}/{total}\n")
        self._stream.flush()
