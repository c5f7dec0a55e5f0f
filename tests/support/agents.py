"""Agents as processes of their own, as on a board."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

START_TIMEOUT_S = 120.0
COMMAND = [sys.executable, "-c", "import sys; from runtime_edge.cli import main; sys.exit(main())"]


def edgeplan(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line; returns when it is done."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=300
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


class AgentProcess:
    """An agent that listens on a loopback port.

    Attributes:
        address: of the link to it; port: that it listens on; process: itself.
    """

    def __init__(
        self, store: Path, *, options: Sequence[object] = (), port: int = 0, lines: str = "--tcp"
    ) -> None:
        """Start it and wait until it serves; lines `--serial` serves the port named in options."""
        where = ["--tcp", f"127.0.0.1:{port}"] if lines == "--tcp" else []
        self.process = subprocess.Popen(
            [*COMMAND, "agent", *where, "--store", str(store), *map(str, options)],
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        self._is_serving = threading.Event()
        self.port = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._is_serving.wait(START_TIMEOUT_S):
            self.kill()
            raise AssertionError(f"the agent does not serve: {''.join(self.log)}")
        self.address = f"tcp://127.0.0.1:{self.port}"

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            found = re.search(r"listening on \S+ port (\d+)|serving /dev", line)
            if found and not self._is_serving.is_set():
                self.port = int(found[1] or 0)
                self._is_serving.set()

    def wait_for_log(self, text: str, timeout_s: float = 120.0) -> None:
        """Wait until a line with the text was logged."""
        end = time.monotonic() + timeout_s
        while not any(text in line for line in list(self.log)):
            assert time.monotonic() < end, f"'{text}' is not in: {''.join(self.log)}"
            time.sleep(0.01)

    def kill(self) -> None:
        """As a power cut would end it."""
        self.process.send_signal(signal.SIGKILL)
        self._finish()

    def stop(self) -> int:
        """End it in an orderly way; returns its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        return self._finish()

    def _finish(self) -> int:
        status = self.process.wait(120)
        self._reader.join(120)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return status

    def __enter__(self) -> AgentProcess:
        """The running agent."""
        return self

    def __exit__(self, *exception: object) -> None:
        """End it."""
        self.stop()


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
