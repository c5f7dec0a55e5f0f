"""Run scripts/systemd/edgeplan.service under a real systemd and see that it does what it promises.

    sudo .venv/bin/python scripts/check_systemd.py

Needs root and systemd. On a machine that was started by systemd the unit is installed below
/run/systemd/system under the name edgeplan-check, and removed at the end. Elsewhere (containers,
CI) systemd runs as the first process of namespaces of its own and nothing outside them changes.
The unit's text is used as it is; a drop-in says where this checkout's Python and the test plans
are, and shortens the watchdog. Prints one line per check; status 0 when all hold.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
UNIT_FILE = ROOT / "scripts" / "systemd" / "edgeplan.service"
UNIT = "edgeplan-check"
WORK = Path("/run/edgeplan-check-files")  # not below /tmp, which the unit sees its own of
SOCKET = f"/run/{UNIT}/edgeplan.sock"
USER = "edgeplan"
SYSTEMD = "/lib/systemd/systemd"
SYSTEMCTL = "/usr/bin/systemctl"
WATCHDOG_S = 3
WAIT_S = 90.0
X = [float(i % 10) for i in range(1000)]

DROP_IN = """
[Service]
ExecStart=
ExecStart=/usr/bin/env edgeplan serve --config {work}/serve.toml --log-json
Environment=PATH={path} PYTHONPATH={root} PYTHONDONTWRITEBYTECODE=1
RuntimeDirectory={unit}
StateDirectory={unit}
WatchdogSec={watchdog}
StandardOutput=append:{work}/serve.log
StandardError=append:{work}/serve.log
{home}
"""
CONFIG = f"""
[server]
http = ""
unix = "{SOCKET}"
state_dir = "/var/lib/{UNIT}"
watch_interval_s = 0
[plans.m]
path = "{WORK}/current"
[plans.slow]
path = "{WORK}/slow.plan"
"""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP to the daemon's Unix socket."""

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(WAIT_S)
        self.sock.connect(SOCKET)


def infer(plan: str) -> tuple[int, list[float]]:
    """Status of one request, and its output."""
    entry = {"name": "x", "datatype": "FP32", "shape": [1, len(X)], "data": X}
    connection = _UnixConnection("localhost")
    try:
        path = f"/v2/models/{plan}/infer"
        connection.request("POST", path, json.dumps({"inputs": [entry]}))
        response = connection.getresponse()
        content = json.loads(response.read())
    finally:
        connection.close()
    return response.status, content["outputs"][0]["data"] if response.status == 200 else []


def factor(plan: str = "m") -> float:
    """What the served version multiplies with; 0 when nothing answers."""
    try:
        status, output = infer(plan)
    except OSError:
        return 0.0
    return output[1] if status == 200 else 0.0


def systemctl(*arguments: str) -> str:
    """Output of systemctl.

    Raises:
        SystemExit: it failed.
    """
    done = subprocess.run(
        [SYSTEMCTL, "--no-pager", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        log = WORK / "serve.log"
        raise SystemExit(
            f"systemctl {' '.join(arguments)} ended with status {done.returncode}: {done.stderr}\n"
            + systemctl_show()
            + (log.read_text()[-3000:] if log.exists() else "")
        )
    return done.stdout


def systemctl_show() -> str:
    """State of the unit as text, for messages."""
    names = "ActiveState,SubState,Result,ExecMainStatus,ExecMainCode,StatusText,NRestarts"
    command = [SYSTEMCTL, "show", UNIT, "-p", names]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def show(name: str) -> str:
    """A property of the unit."""
    return systemctl("show", UNIT, "-p", name, "--value").strip()


def wait_for(condition: Callable[[], Any], what: str) -> float:
    """Seconds until a condition holds.

    Raises:
        SystemExit: it does not within WAIT_S.
    """
    begin = time.monotonic()
    while time.monotonic() - begin < WAIT_S:
        if condition():
            return time.monotonic() - begin
        time.sleep(0.05)
    raise SystemExit(f"not within {WAIT_S:.0f} s: {what}\n{systemctl_show()}")


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


def switch(name: str) -> None:
    """Let the link to the plan lead elsewhere, in one step."""
    fresh = WORK / "fresh"
    fresh.symlink_to(WORK / name)
    os.replace(fresh, WORK / "current")


def process_status(pid: int) -> dict[str, str]:
    """Fields of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: rest.strip() for name, _, rest in (line.partition(":") for line in lines)}


def run_checks(plans: Path) -> None:
    """Everything, on the systemd that this process runs under, with plans from a folder."""
    with installed(plans):
        check_start()
        check_reload()
        check_drain()
        check_watchdog()
        check_crash()
        systemctl("stop", UNIT)


def check_start() -> None:
    """Readiness, the user, the sandbox, and the watchdog of an idle daemon."""
    begin = time.monotonic()
    systemctl("start", UNIT)
    check("`systemctl start` returns when the plans serve", factor() == 0.5, ms_since(begin))
    check("the status line tells so", show("StatusText") == "serving 2 of 2 plans")
    pid = int(show("MainPID"))
    fields = process_status(pid)
    check(f"it runs as {USER}", pwd.getpwuid(int(fields["Uid"].split()[0])).pw_name == USER)
    check("without capabilities", int(fields["CapBnd"], 16) == 0, fields["CapBnd"])
    is_confined = fields["NoNewPrivs"] == "1" and fields["Seccomp"] == "2"
    check("without new privileges and behind the system call filter", is_confined)
    mode = os.stat(SOCKET).st_mode & 0o777
    check("the socket is for its user and group", mode == 0o660, f"{mode:o}")
    time.sleep(2.5 * WATCHDOG_S)
    check(
        "an idle daemon feeds the watchdog",
        int(show("MainPID")) == pid and show("NRestarts") == "0",
    )


def check_reload() -> None:
    """A new version by `systemctl reload`, and one that is broken."""
    pid = show("MainPID")
    switch("double.plan")
    systemctl("reload", UNIT)
    seconds = wait_for(lambda: factor() == 2.0, "the new version serves")
    check("`systemctl reload` brings the new version", True, f"{seconds * 1000:.0f} ms")
    switch("broken.plan")
    systemctl("reload", UNIT)
    wait_for(lambda: "not used" in (WORK / "serve.log").read_text(), "the refusal is logged")
    check("a broken version leaves the old one serving", factor() == 2.0)
    wait_for(lambda: show("ActiveState") == "active", "the reload is over for systemd")
    check("in the same process", show("MainPID") == pid and show("NRestarts") == "0")


def check_drain() -> None:
    """SIGTERM finishes what was accepted."""
    switch("half.plan")
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(infer("slow")[0]))
    thread.start()
    wait_for(lambda: pending() > 0, "the request is under way")
    systemctl("stop", UNIT)
    thread.join(WAIT_S)
    check("a request under way at SIGTERM is answered", answers == [200], answers)
    end = f"{show('Result')}, status {show('ExecMainStatus')}"
    check("the end is a success", end == "success, status 0", end)


def check_watchdog() -> None:
    """A kernel that never ends."""
    systemctl("start", UNIT)
    begin, pid = time.monotonic(), show("MainPID")
    switch("endless.plan")
    systemctl("kill", "--kill-who=main", "--signal=HUP", UNIT)  # its warm-up never ends
    wait_for(is_loading, "the load begins")
    switch("half.plan")
    wait_for(lambda: show("NRestarts") == "1", "the watchdog restarts it")
    seen = f"after {time.monotonic() - begin:.1f} s with WatchdogSec={WATCHDOG_S}"
    check("a hung kernel ends in a restart by the watchdog", show("MainPID") != pid, seen)
    seconds = wait_for(lambda: factor() == 0.5, "it serves again")
    check("which serves again", True, f"{seconds * 1000:.0f} ms later")


def check_crash() -> None:
    """The process ends without a word."""
    pid = int(show("MainPID"))
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: show("MainPID") not in (str(pid), "0") and factor() == 0.5, "it is back")
    check("after kill -9 it is started again and serves", int(show("NRestarts")) == 2)


def pending() -> int:
    """Requests that the daemon works on."""
    return int(get("/status.json")["pending"])


def is_loading() -> bool:
    """Whether the load of the endless plan has begun: its file is mapped."""
    return "endless.plan" in Path(f"/proc/{show('MainPID')}/maps").read_text()


def get(path: str) -> Any:
    """JSON of a GET."""
    connection = _UnixConnection("localhost")
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def ms_since(begin: float) -> str:
    """Time for a line."""
    return f"{(time.monotonic() - begin) * 1000:.0f} ms"


@contextmanager
def installed(plans: Path) -> Iterator[None]:
    """The unit and its files, removed behind the checks."""
    if Path(f"/run/systemd/system/{UNIT}.service").exists():
        raise SystemExit(f"{UNIT} is installed already: another check runs, or one was cut off")
    try:
        pwd.getpwnam(USER)
    except KeyError:
        text = f"there is no user {USER}; the head of {UNIT_FILE} says how to make one"
        raise SystemExit(text) from None
    units = Path("/run/systemd/system")
    try:
        shutil.copytree(plans, WORK)
        WORK.chmod(0o755)
        switch("half.plan")
        (WORK / "serve.toml").write_text(CONFIG)
        shutil.copy(UNIT_FILE, units / f"{UNIT}.service")
        (units / f"{UNIT}.service.d").mkdir()
        paths = [str(Path(sys.executable).parent), "/usr/bin", "/bin"]
        is_home = any(path.startswith(("/home/", "/root/")) for path in used_folders())
        text = DROP_IN.format(
            work=WORK,
            path=":".join(paths),
            root=ROOT,
            unit=UNIT,
            watchdog=WATCHDOG_S,
            home="ProtectHome=read-only" if is_home else "",
        )
        (units / f"{UNIT}.service.d" / "check.conf").write_text(text)
        systemctl("daemon-reload")
        yield
    finally:
        subprocess.run([SYSTEMCTL, "stop", UNIT], check=False, capture_output=True)
        for path in (units / f"{UNIT}.service.d", WORK, Path(f"/var/lib/{UNIT}")):
            shutil.rmtree(path, ignore_errors=True)
        (units / f"{UNIT}.service").unlink(missing_ok=True)
        systemctl("daemon-reload")


def used_folders() -> list[str]:
    """Where Python and the code are."""
    return [os.path.realpath(path) for path in (ROOT, sys.prefix, sys.base_prefix)]


def make_plans(folder: Path) -> None:
    """Two versions, a broken one, one that takes its time, and one that never ends."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    from support.serve_plans import save, scale_plan, slow_plan

    save(scale_plan(), folder / "half.plan")
    save(scale_plan(scale=2.0), folder / "double.plan")
    save(slow_plan(30_000), folder / "slow.plan")
    save(slow_plan(2_000_000_000), folder / "endless.plan")
    (folder / "broken.plan").write_bytes((folder / "half.plan").read_bytes()[:-100])


# -- a systemd of one's own

FIRST_PROCESS = """
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
CHECK_UNIT = """
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart={python} {script} --plans {plans}
StandardOutput=append:{folder}/out
StandardError=append:{folder}/out
ExecStopPost=/bin/sh -c 'echo $$EXIT_STATUS > {folder}/status'
"""
TARGETS = (
    *("basic", "multi-user", "network", "paths", "shutdown", "slices", "sockets", "sysinit"),
    *("timers", "umount"),
)
"""Empty in the systemd of one's own: the machine's own units are not to be started there."""


def run_in_namespaces(plans: Path, script: Path) -> int:
    """Start systemd as the first process of new namespaces, with the checks as its only service.

    Args:
        plans: folder of what the checks need.
        script: that does the checks; it is called with `--plans` and the folder.

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
        for target in TARGETS:
            text = "[Unit]\nDefaultDependencies=no\n"
            (folder / f"{target}.target").write_text(text)
        (folder / "check.service").write_text(
            CHECK_UNIT.format(python=sys.executable, script=script, folder=folder, plans=plans)
        )
        (folder / "out").touch()
        command = ["unshare", "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--fork"]
        command += ["--kill-child", "/bin/sh", "-c", FIRST_PROCESS, "sh", str(folder), SYSTEMD]
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


def main() -> int:
    """Check, here or in namespaces."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--plans", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("installing a unit needs root: run it with sudo")
    if args.plans is not None:
        run_checks(args.plans)
        return 0
    with tempfile.TemporaryDirectory() as name:
        make_plans(Path(name))
        if not os.path.isdir("/run/systemd/system"):
            return run_in_namespaces(Path(name), Path(__file__).resolve())
        run_checks(Path(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
