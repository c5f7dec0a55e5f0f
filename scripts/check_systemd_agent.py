"""Run scripts/systemd/edgeplan-agent.service under a real systemd and see that it works there.

    sudo .venv/bin/python scripts/check_systemd_agent.py

As scripts/check_systemd.py, which says where: plans are deployed to the confined agent and run in
its children, candidates are timed, it is hung, killed and stopped. Prints one line per check;
status 0 when all hold.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from check_systemd import ROOT, SYSTEMCTL, USER, WAIT_S, check, run_in_namespaces, used_folders

from boards.deploy import deploy
from boards.errors import LinkError
from boards.link.client import LinkOptions
from boards.link.connecting import connect
from boards.link.file_transfer import BoardLink, send_to_cache
from boards.link.key_file import read_link_key, write_link_key

UNIT_FILE = ROOT / "scripts" / "systemd" / "edgeplan-agent.service"
UNIT = "edgeplan-agent-check"
WORK = Path("/run/edgeplan-agent-check-files")  # not below /tmp, which the unit sees its own of
KEY = WORK / "link.key"
WATCHDOG_S = 3

DROP_IN = """
[Service]
ExecStart=
ExecStart=/usr/bin/env edgeplan agent --tcp {host} --link-key {key} --store /var/lib/{unit}
Environment=PATH={path} PYTHONPATH={root} PYTHONDONTWRITEBYTECODE=1
StateDirectory={unit}
WatchdogSec={watchdog}
StandardOutput=append:{work}/agent.log
StandardError=append:{work}/agent.log
{home}
"""


def systemctl(*arguments: str) -> str:
    """Output of systemctl.

    Raises:
        SystemExit: it failed.
    """
    command = [SYSTEMCTL, "--no-pager", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)}: status {done.returncode}: {done.stderr}{last_words()}"
        )
    return done.stdout.strip()


def show(name: str) -> str:
    """A property of the unit."""
    return systemctl("show", UNIT, "-p", name, "--value")


def last_words() -> str:
    """The end of the agent's log."""
    log = WORK / "agent.log"
    return "\n" + log.read_text(errors="replace")[-3000:] if log.exists() else ""


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
    raise SystemExit(f"not within {WAIT_S:.0f} s: {what}{last_words()}")


def run_checks(files: Path) -> None:
    """Everything, on the systemd that this process runs under."""
    with installed() as address:
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


@contextlib.contextmanager
def installed() -> Iterator[str]:
    """The unit and its files, removed behind the checks. Yields the link's address."""
    units = Path("/run/systemd/system")
    if (units / f"{UNIT}.service").exists():
        raise SystemExit(f"{UNIT} is installed already: another check runs, or one was cut off")
    try:
        user = pwd.getpwnam(USER)
    except KeyError:
        raise SystemExit(f"there is no user {USER}; make one: useradd --system {USER}") from None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
    drop_in = units / f"{UNIT}.service.d"
    try:
        WORK.mkdir(mode=0o755)
        write_link_key(KEY)
        os.chown(KEY, user.pw_uid, user.pw_gid)
        shutil.copy(UNIT_FILE, units / f"{UNIT}.service")
        drop_in.mkdir()
        is_home = any(path.startswith(("/home/", "/root/")) for path in used_folders())
        text = DROP_IN.format(
            host=host,
            key=KEY,
            work=WORK,
            path=":".join([str(Path(sys.executable).parent), "/usr/bin", "/bin"]),
            root=ROOT,
            unit=UNIT,
            watchdog=WATCHDOG_S,
            home="ProtectHome=read-only" if is_home else "",
        )
        (drop_in / "check.conf").write_text(text)
        systemctl("daemon-reload")
        yield f"tcp://{host}"
    finally:
        subprocess.run([SYSTEMCTL, "stop", UNIT], check=False, capture_output=True)
        for path in (drop_in, WORK, Path(f"/var/lib/{UNIT}")):
            shutil.rmtree(path, ignore_errors=True)
        (units / f"{UNIT}.service").unlink(missing_ok=True)
        systemctl("daemon-reload")


def make_files(folder: Path) -> None:
    """A plan, and a bundle of a sound candidate and one that crashes."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
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
        make_files(Path(name))
        if not os.path.isdir("/run/systemd/system"):
            return run_in_namespaces(Path(name), Path(__file__).resolve())
        run_checks(Path(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
