"""Run scripts/systemd/edgeplan-agent.service under a real systemd and see that it works there.

    sudo .venv/bin/python scripts/check_systemd_agent.py

As scripts/systemd_checks.py says where: plans are deployed to the confined agent and run in
its children, candidates are timed, it is hung, killed and stopped. Prints one line per check;
status 0 when all hold.
"""

from __future__ import annotations

import os
import pwd
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from systemd_checks import USER, WAIT_S, WATCHDOG_S, CheckedUnit, check, main

from boards.deploy import deploy
from boards.errors import LinkError
from boards.link.client import LinkOptions
from boards.link.connecting import connect
from boards.link.file_transfer import BoardLink, send_to_cache
from boards.link.key_file import read_link_key, write_link_key

SERVICE = CheckedUnit("edgeplan-agent.service", "edgeplan-agent-check")
UNIT = SERVICE.name
systemctl, show, wait_for = SERVICE.systemctl, SERVICE.show, SERVICE.wait_for
KEY = SERVICE.work / "link.key"


def run_checks(files: Path) -> None:
    """Everything, on the systemd that this process runs under."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
    address = f"tcp://{host}"

    def prepare() -> None:
        user = pwd.getpwnam(USER)
        write_link_key(KEY)
        os.chown(KEY, user.pw_uid, user.pw_gid)

    command = f"edgeplan agent --tcp {host} --link-key {KEY} --store /var/lib/{UNIT}"
    with SERVICE.installed(command, prepare=prepare):
        options = LinkOptions(read_link_key(KEY))

        def answers() -> bool:
            try:
                with connect(address, options) as client:
                    client.call("ping")
            except LinkError:
                return False
            return True

        begin = time.monotonic()
        systemctl("start", UNIT)
        milliseconds = (time.monotonic() - begin) * 1000
        check(
            "`systemctl start` returns when hosts can connect", answers(), f"{milliseconds:.0f} ms"
        )
        pid = int(show("MainPID"))
        owner = pwd.getpwuid(os.stat(f"/proc/{pid}").st_uid).pw_name
        check("it runs without rights", owner == USER, owner)
        with BoardLink(address, options) as link:
            check_work(link, files)
        time.sleep(2.5 * WATCHDOG_S)
        is_same = int(show("MainPID")) == pid and show("NRestarts") == "0"
        check("an agent that waits for hosts feeds the watchdog", is_same)
        check_ends(pid, answers)


def check_work(link: BoardLink, files: Path) -> None:
    """What the agent is for, behind the unit's walls."""
    done = deploy(link, files / "half.plan", "net", is_activated=True)
    check("a plan is stored, checked, activated and run", done.is_active, ", ".join(done.steps))
    rows: dict[int, Any] = {}
    sha256 = send_to_cache(link, (files / "bundle.zip").read_bytes()).sha256
    link.call(
        "measure",
        {"sha256": sha256, "device": "cpu", "candidate_s": 5.0},
        timeout_s=WAIT_S,
        notice=lambda message: rows.update({row[0]: row for row in message.fields["results"]}),
    )
    check("a candidate is timed", rows[0][1] is not None, f"{rows[0][1]} µs")
    check("one that crashes is a result", "SIGSEGV" in rows[1][5], rows[1][5])


def check_ends(pid: int, answers: Callable[[], bool]) -> None:
    """Hung, killed, stopped."""
    os.kill(pid, signal.SIGSTOP)
    seconds = wait_for(lambda: show("NRestarts") == "1" and answers(), "the watchdog restarts it")
    check(
        "one that hangs is started again by the watchdog",
        int(show("MainPID")) != pid,
        f"after {seconds:.1f} s with WatchdogSec={WATCHDOG_S}",
    )
    os.kill(int(show("MainPID")), signal.SIGKILL)
    wait_for(lambda: show("NRestarts") == "2" and answers(), "it is back")
    check("one that is killed is started again", True)
    systemctl("stop", UNIT)
    end = f"{show('Result')}, status {show('ExecMainStatus')}"
    check("`systemctl stop` is a success", end == "success, status 0", end)


def make_files(folder: Path) -> None:
    """A plan, and a bundle of a sound candidate and one that crashes."""
    from support.bad_candidates import candidates
    from support.serve_plans import save, scale_plan
    from support.tiny_plans import code

    from builder_host.measure.bundle import bundle_pieces
    from runtime_edge.probe import probe_device

    save(scale_plan(), folder / "half.plan")
    data, _ = bundle_pieces(
        candidates(folder, ["good", "segfault"]),
        fingerprint=probe_device(),
        num_workers=1,
        flush_bytes=0,
        support=code(),
    )
    (folder / "bundle.zip").write_bytes(data)


if __name__ == "__main__":
    sys.exit(main(__doc__, __file__, make_files, run_checks))
