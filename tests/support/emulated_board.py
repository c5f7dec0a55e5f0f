"""Emulated aarch64 boards: whole machines of QEMU with an agent at their serial port."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from boards.errors import LinkError
from boards.link.connecting import connect

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "emulated_board"
REQUIRED = "EDGEPLAN_REQUIRE_EMULATED"
_USER_MODE = ("mmdebstrap", "qemu-aarch64-static")
_MACHINE = (*_USER_MODE, "cpio", "qemu-system-aarch64")
_ROOTFS_TIMEOUT_S = 600  # 15 to 60 s where Debian's packages can be had
_START_TIMEOUT_S = 300.0  # 11 s on an idle machine


def require_emulators(*, is_machine: bool = True) -> None:
    """Skip the test where emulated boards cannot be had, or fail it where they are said to be.

    The variable EDGEPLAN_REQUIRE_EMULATED says so with 1; with 0 nothing is tried, and they skip.

    Args:
        is_machine: whether a whole machine is needed, or only what runs arm64 programs here.
    """
    wish = os.environ.get(REQUIRED)
    text = f"{REQUIRED}=0" if wish == "0" else _why_not(is_machine)
    if text and wish == "1":
        pytest.fail(f"{REQUIRED}=1, but {text}")
    if text:
        pytest.skip(text)


@functools.cache
def _why_not(is_machine: bool) -> str:
    """Why emulated boards cannot be had, empty when they can; makes their system if need be."""
    programs = _MACHINE if is_machine else _USER_MODE
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} missing; {SCRIPTS / 'prepare'} installs them"
    # `timeout` ends all that the script started, and the script tidies up; status 124
    command = ["timeout", "--kill-after=10", str(_ROOTFS_TIMEOUT_S), str(SCRIPTS / "rootfs")]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode == 124:
        return f"no arm64 system: it was not made within {_ROOTFS_TIMEOUT_S} s"
    return f"no arm64 system: {made.stderr[-2000:]}" if made.returncode else ""


class EmulatedBoard:
    """A machine with a disk of its own.

    Attributes:
        folder: of its kernel and disk; address: of the link to it.
    """

    def __init__(self, folder: Path, *, console: str = "agent") -> None:
        """Make the disk unless there is one; `start` starts the machine."""
        self.folder = folder
        self.address = f"serial://{folder / 'console'}?baud=921600"
        self._console = console
        self._process: subprocess.Popen[str] | None = None
        if not (folder / "disk.img").exists():
            made = subprocess.run(
                [SCRIPTS / "image", folder], capture_output=True, text=True, timeout=600
            )
            assert made.returncode == 0, made.stderr

    def start(self) -> EmulatedBoard:
        """Switch it on; returns once its system runs, a little before its agent does."""
        self._process = subprocess.Popen(
            [SCRIPTS / "start", self.folder, "--console", self._console],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("board at "), line
        return self

    def wait(self) -> EmulatedBoard:
        """Wait until its agent answers."""
        end = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                connect(self.address).close()
                return self
            except LinkError:
                assert time.monotonic() < end, "the agent did not answer"

    def cut_power(self) -> None:
        """End the machine at once; what its system had not written to the disk is lost."""
        if self._process is None:
            return
        process, self._process = self._process, None
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGKILL)  # takes the emulator along
        process.wait(30)
        end = time.monotonic() + 30
        while any(Path(f"/proc/{pid}").exists() for pid in children):  # until then it has the disk
            assert time.monotonic() < end, f"the emulator {children} goes on"
            time.sleep(0.01)
        assert process.stdout is not None
        process.stdout.close()

    def __enter__(self) -> EmulatedBoard:
        """The machine, switched on, its agent answering."""
        try:
            return self.start().wait()
        except BaseException:
            self.cut_power()
            raise

    def __exit__(self, *exception: object) -> None:
        """Switch off."""
        self.cut_power()
