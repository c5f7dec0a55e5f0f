"""Run scripts/systemd/edgeplan.service under a real systemd and see that it does what it promises.

    sudo .venv/bin/python scripts/check_systemd.py

Needs root and systemd; scripts/systemd_checks.py says where it runs. Prints one line per check;
status 0 when all hold.
"""

from __future__ import annotations

import http.client
import json
import os
import pwd
import shutil
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from systemd_checks import USER, WAIT_S, WATCHDOG_S, CheckedUnit, check, main

SERVICE = CheckedUnit("edgeplan.service", "edgeplan-check")
UNIT, WORK = SERVICE.name, SERVICE.work
systemctl, show, wait_for = SERVICE.systemctl, SERVICE.show, SERVICE.wait_for
SOCKET = f"/run/{UNIT}/edgeplan.sock"
X = [float(i % 10) for i in range(1000)]

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

    def prepare() -> None:
        shutil.copytree(plans, WORK, dirs_exist_ok=True)
        WORK.chmod(0o755)
        switch("half.plan")
        (WORK / "serve.toml").write_text(CONFIG)

    command = f"edgeplan serve --config {WORK}/serve.toml --log-json"
    with SERVICE.installed(command, f"RuntimeDirectory={UNIT}", prepare=prepare):
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
    wait_for(lambda: "not used" in (SERVICE.log).read_text(), "the refusal is logged")
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


def make_plans(folder: Path) -> None:
    """Two versions, a broken one, one that takes its time, and one that never ends."""
    from support.serve_plans import save, scale_plan, slow_plan

    save(scale_plan(), folder / "half.plan")
    save(scale_plan(scale=2.0), folder / "double.plan")
    save(slow_plan(30_000), folder / "slow.plan")
    save(slow_plan(2_000_000_000), folder / "endless.plan")
    (folder / "broken.plan").write_bytes((folder / "half.plan").read_bytes()[:-100])


if __name__ == "__main__":
    sys.exit(main(__doc__, __file__, make_plans, run_checks))
