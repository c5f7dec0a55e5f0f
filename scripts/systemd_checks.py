"""What checks of unit files under a real systemd share: the unit, its removal, a systemd to run it.

On a machine that was started by systemd a unit is installed below /run/systemd/system, and removed
at the end. Elsewhere (containers, CI) systemd runs as the first process of namespaces of its own
and nothing outside them changes. The unit's text is used as it is; a drop-in says where this
checkout's Python and the files of the check are, and shortens the watchdog.
"""

from __future__ import annotations

import argparse
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
UNITS = Path("/run/systemd/system")
USER = "edgeplan"
SYSTEMD = "/lib/systemd/systemd"
SYSTEMCTL = "/usr/bin/systemctl"
WATCHDOG_S = 3
WAIT_S = 90.0

_DROP_IN = """
[Service]
ExecStart=
ExecStart=/usr/bin/env {command}
Environment=PATH={path} PYTHONPATH={root} PYTHONDONTWRITEBYTECODE=1
StateDirectory={name}
WatchdogSec={watchdog}
StandardOutput=append:{log}
StandardError=append:{log}
{settings}
"""


class CheckedUnit:
    """A unit file, installed under another name while it is checked.

    Attributes:
        name: of the installed unit.
        work: folder for the check's files; not below /tmp, which units see their own of.
        log: what the service writes.
    """

    def __init__(self, file: str, name: str) -> None:
        """The unit of scripts/systemd/`file`, not installed yet."""
        self.file = ROOT / "scripts" / "systemd" / file
        self.name = name
        self.work = Path(f"/run/{name}-files")
        self.log = self.work / "log"

    def systemctl(self, *arguments: str) -> str:
        """Output of systemctl.

        Raises:
            SystemExit: it failed.
        """
        command = [SYSTEMCTL, "--no-pager", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(
                f"{' '.join(command)}: status {done.returncode}: {done.stderr}{self._last_words()}"
            )
        return done.stdout.strip()

    def show(self, name: str) -> str:
        """A property of the unit."""
        return self.systemctl("show", self.name, "-p", name, "--value")

    def wait_for(self, condition: Callable[[], Any], what: str) -> float:
        """Seconds until a condition holds.

        Raises:
            SystemExit: it does not within WAIT_S.
        """
        begin = time.monotonic()
        while time.monotonic() - begin < WAIT_S:
            if condition():
                return time.monotonic() - begin
            time.sleep(0.05)
        raise SystemExit(f"not within {WAIT_S:.0f} s: {what}{self._last_words()}")

    @contextmanager
    def installed(
        self, command: str, settings: str = "", *, prepare: Callable[[], None]
    ) -> Iterator[None]:
        """The unit and its files, removed behind the checks.

        Args:
            command: that the service runs.
            settings: further lines of its section.
            prepare: fills the empty work folder.
        """
        if (UNITS / f"{self.name}.service").exists():
            raise SystemExit(
                f"{self.name} is installed already: another check runs, or one was cut off"
            )
        try:
            pwd.getpwnam(USER)
        except KeyError:
            text = f"there is no user {USER}; the head of {self.file} says how to make one"
            raise SystemExit(text) from None
        drop_in = UNITS / f"{self.name}.service.d"
        try:
            self.work.mkdir(mode=0o755)
            prepare()
            shutil.copy(self.file, UNITS / f"{self.name}.service")
            drop_in.mkdir()
            (drop_in / "check.conf").write_text(self._drop_in(command, settings))
            self.systemctl("daemon-reload")
            yield
        finally:
            subprocess.run([SYSTEMCTL, "stop", self.name], check=False, capture_output=True)
            for path in (drop_in, self.work, Path(f"/var/lib/{self.name}")):
                shutil.rmtree(path, ignore_errors=True)
            (UNITS / f"{self.name}.service").unlink(missing_ok=True)
            self.systemctl("daemon-reload")

    def _drop_in(self, command: str, settings: str) -> str:
        is_home = any(path.startswith(("/home/", "/root/")) for path in used_folders())
        return _DROP_IN.format(
            command=command,
            path=":".join([str(Path(sys.executable).parent), "/usr/bin", "/bin"]),
            root=ROOT,
            name=self.name,
            watchdog=WATCHDOG_S,
            log=self.log,
            settings=settings + ("\nProtectHome=read-only" if is_home else ""),
        )

    def _last_words(self) -> str:
        """State of the unit and the end of its log, for messages."""
        names = "ActiveState,SubState,Result,ExecMainStatus,ExecMainCode,StatusText,NRestarts"
        command = [SYSTEMCTL, "show", self.name, "-p", names]
        state = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        log = self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""
        return f"\n{state}\n{log}"


def check(claim: str, holds: bool, seen: object = "") -> None:
    """Print a line.

    Raises:
        SystemExit: the claim does not hold.
    """
    print(
        f"{'ok  ' if holds else 'FAIL'} {claim}" + (f" ({seen})" if seen != "" else ""), flush=True
    )
    if not holds:
        raise SystemExit(1)


def used_folders() -> list[str]:
    """Where Python and the code are."""
    return [os.path.realpath(path) for path in (ROOT, sys.prefix, sys.base_prefix)]


def main(
    doc: str | None, script: str, make_files: Callable[[Path], None], run: Callable[[Path], None]
) -> int:
    """Check, here or in namespaces.

    Args:
        doc: of the script; its first line is the help's.
        script: the file that calls this.
        make_files: puts what the checks need into a folder.
        run: does the checks, on the systemd that this process runs under.

    Returns:
        The status of the process.
    """
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--files", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("installing a unit needs root: run it with sudo")
    if args.files is not None:
        run(args.files)
        return 0
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    with tempfile.TemporaryDirectory() as name:
        make_files(Path(name))
        if not os.path.isdir("/run/systemd/system"):
            return _run_in_namespaces(Path(name), Path(script).resolve())
        run(Path(name))
    return 0


# -- a systemd of one's own

_FIRST_PROCESS = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
mount -t proc proc /proc
umount -R /sys/fs/cgroup || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/systemd/system /run/units
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/group" /etc/group
cp "$1"/*.target "$1"/check.service /run/units/
folder="$1" systemd="$2"; shift 2
if [ $# -gt 0 ]; then  # a Python in root's home, which no other user may enter: show it alone
    for path; do mkdir -p "/run/home$path"; mount --bind "$path" "/run/home$path"; done
    mount -t tmpfs -o mode=755 tmpfs /root
    for path; do mkdir -p "$path"; mount --move "/run/home$path" "$path"; done
fi
exec env -i container=other SYSTEMD_UNIT_PATH=/run/systemd/system:/run/units PATH=/usr/bin:/bin \
    "$systemd" --system --unit=check.service --show-status=no --log-target=null
"""
_CHECK_UNIT = """
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart={python} {script} --files {files}
StandardOutput=append:{folder}/out
StandardError=append:{folder}/out
ExecStopPost=/bin/sh -c 'echo $$EXIT_STATUS > {folder}/status'
"""
_TARGETS = (
    *("basic", "multi-user", "network", "paths", "shutdown", "slices", "sockets", "sysinit"),
    *("timers", "umount"),
)
"""Empty in the systemd of one's own: the machine's own units are not to be started there."""


def _run_in_namespaces(files: Path, script: Path) -> int:
    """Start systemd as the first process of new namespaces, with the checks as its only service.

    Args:
        files: folder of what the checks need.
        script: that does the checks; it is called with `--files` and the folder.

    Returns:
        Its status.
    """
    for program in (SYSTEMD, SYSTEMCTL, "/usr/bin/unshare"):
        if not os.path.exists(program):
            raise SystemExit(f"{program} is missing: apt-get install systemd util-linux")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("passwd", "group"):
            lines = Path("/etc", file).read_text().splitlines()
            kept = [line for line in lines if not line.startswith(f"{USER}:")]
            entry = f"{USER}:x:990:990::/nonexistent:/usr/sbin/nologin"
            kept.append(entry if file == "passwd" else f"{USER}:x:990:")
            (folder / file).write_text("\n".join(kept) + "\n")
        for target in _TARGETS:
            text = "[Unit]\nDefaultDependencies=no\n"
            (folder / f"{target}.target").write_text(text)
        (folder / "check.service").write_text(
            _CHECK_UNIT.format(python=sys.executable, script=script, folder=folder, files=files)
        )
        (folder / "out").touch()
        command = ["unshare", "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--fork"]
        command += ["--kill-child", "/bin/sh", "-c", _FIRST_PROCESS, "sh", str(folder), SYSTEMD]
        command += sorted({path for path in used_folders() if path.startswith("/root/")})
        first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            return _follow(first, folder)
        finally:
            first.kill()
            first.wait()


def _follow(first: subprocess.Popen[str], folder: Path) -> int:
    """Print what the checks print; their status."""
    status = folder / "status"
    with open(folder / "out") as output:
        while first.poll() is None and not (status.exists() and status.read_text().strip()):
            print(output.read(), end="", flush=True)
            time.sleep(0.1)
        print(output.read(), end="", flush=True)
    if not status.exists():
        assert first.stderr is not None
        raise SystemExit(f"systemd could not be started in namespaces: {first.stderr.read()}")
    text = status.read_text().strip()
    return int(text) if text.isdigit() else 1
