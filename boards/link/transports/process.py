"""The standard input and output of a program: ssh to a board, or an agent on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from boards.errors import LinkError, LinkLostError
from boards.link.transports.base import DescriptorTransport

_END_WAIT_S = 5.0
_STDERR_BYTES = 2000


class ProcessTransport(DescriptorTransport):
    """A child process whose standard input and output are the line."""

    def __init__(self, command: Sequence[str], *, name: str) -> None:
        """Start the program.

        Raises:
            LinkError: it cannot be started.
        """
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the line
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                start_new_session=True,  # Ctrl-C is for this program, which then says farewell
            )
        except OSError as error:
            self._stderr.close()
            raise LinkError(f"{name}: {command[0]} cannot be started: {error}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        read_fd, write_fd = (
            os.dup(self._process.stdout.fileno()),
            os.dup(self._process.stdin.fileno()),
        )
        self._process.stdin.close()
        self._process.stdout.close()
        super().__init__(read_fd, write_fd, name=name)

    def read(self) -> bytes:
        """See `Transport.read`; the program's last words go into the error."""
        try:
            return super().read()
        except LinkLostError as error:
            raise self._obituary(error) from error

    def write(self, data: bytes | memoryview) -> int:
        """See `Transport.write`; the program's last words go into the error."""
        try:
            return super().write(data)
        except LinkLostError as error:
            raise self._obituary(error) from error

    def close(self) -> None:
        """Close its input and let it end."""
        if not self._is_open:
            return
        super().close()
        try:
            self._process.wait(_END_WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stderr.close()

    def _obituary(self, error: LinkLostError) -> LinkLostError:
        try:
            status = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return error  # it closed the line and goes on
        end = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, end - _STDERR_BYTES))
        text = self._stderr.read().decode("utf-8", "replace").strip()
        return LinkLostError(
            f"{self.name}: the program behind the line ended with status {status}"
            + (f": {text}" if text else "")
        )


def ssh_command(host: str, port: int | None, user: str, remote: str) -> list[str]:
    """Arguments of the system's ssh; `remote` is the command line on the board."""
    command = ["ssh", "-T", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=5"]
    if port is not None:
        command += ["-p", str(port)]
    return [*command, "--", f"{user}@{host}" if user else host, remote]


def local_agent_command(store: str) -> list[str]:
    """Arguments that start an agent for a store on this machine."""
    code = "import sys; from runtime_edge.cli import main; sys.exit(main())"
    return [sys.executable, "-c", code, "agent", "--stdio", "--store", store]
