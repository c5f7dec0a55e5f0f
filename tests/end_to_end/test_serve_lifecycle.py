"""Start, readiness, watchdog, drain, reload, roll-back, memory report, token, TLS."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from support.serve_plans import row_input, save, scale_plan, slow_plan
from support.serving import (
    ROOT,
    infer_body,
    read_reply,
    request_bytes,
    serving,
    wait_until,
)

from boards.store.plan_store import PlanStore
from boards.store.records import ReleaseRecord, ReleaseState


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plans")
    save(scale_plan(), folder / "scale.plan")
    save(scale_plan(scale=2.0), folder / "double.plan")
    (folder / "broken.plan").write_bytes((folder / "scale.plan").read_bytes()[:-100])
    return folder


class Manager:
    """The service manager's end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(path))
        self.sock.settimeout(60)
        self.messages: list[str] = []

    def wait_for(self, text: str) -> None:
        while True:
            message = self.sock.recv(4096).decode()
            self.messages.append(message)
            if text in message:
                return

    def count(self, text: str, seconds: float) -> int:
        """Messages with a text within some time."""
        end = time.monotonic() + seconds
        num = 0
        while (left := end - time.monotonic()) > 0:
            self.sock.settimeout(left)
            try:
                num += text in self.sock.recv(4096).decode()
            except TimeoutError:
                break
        self.sock.settimeout(60)
        return num


@contextmanager
def manager(folder: Path) -> Iterator[Manager]:
    made = Manager(folder / "notify")
    try:
        yield made
    finally:
        made.sock.close()


def output(served, x):
    reply = served.infer("m", x)
    assert reply.status == 200, reply
    return reply.output()


def test_ready_status_stopping_and_exit_0(plans, tmp_path):
    with manager(tmp_path) as notified:
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        with serving(
            tmp_path, plans={"m": plans / "scale.plan"}, environment=environment
        ) as served:
            notified.wait_for("READY=1")
            assert any("STATUS=loading plan 1 of 1: m" in text for text in notified.messages)
            served.process.send_signal(signal.SIGTERM)
            notified.wait_for("STOPPING=1")
            assert served.process.wait(60) == 0


def test_the_watchdog_is_fed_by_inferences_and_starves_when_one_hangs(plans, tmp_path):
    endless = save(slow_plan(2_000_000_000), tmp_path / "endless.plan")
    link = tmp_path / "current"
    link.symlink_to(plans / "scale.plan")
    toml = f"[server]\nwatch_interval_s = 0.02\n[plans.m]\npath = '{link}'\n"
    with manager(tmp_path) as notified:
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
        with serving(tmp_path, toml=toml, environment=environment) as served:
            notified.wait_for("READY=1")
            for _ in range(3):
                notified.wait_for("WATCHDOG=1")  # idle, so self-tests feed it
            for _ in range(50):
                assert output(served, row_input())[0, 0] == 0.5
            for _ in range(2):
                notified.wait_for("WATCHDOG=1")
            switch(link, endless)  # its first inference on this stream never ends
            notified.wait_for("RELOADING=1")
            # From the time at which that inference runs; loading the plan takes a moment.
            wait_until(lambda: notified.count("WATCHDOG=1", 2.0) == 0, "the watchdog starves")
            assert notified.count("WATCHDOG=1", 1.0) == 0
            assert served.request("GET", "/v2/health/live").status == 200
            served.process.kill()
            served.process.wait()


def test_sigterm_finishes_what_was_accepted_and_refuses_the_rest(plans, tmp_path):
    slow = save(slow_plan(40_000), tmp_path / "slow.plan")  # 0.4 s each on a fast machine
    toml = f"[plans.m]\npath = '{slow}'\nqueue_ms = 60000\n"
    with serving(tmp_path, toml=toml) as served:
        body, headers = infer_body(row_input())
        socks = [served.connect() for _ in range(3)]
        late = served.connect()
        for sock in socks:
            sock.sendall(request_bytes("POST", "/v2/models/m/infer", body, **headers))
        wait_until(lambda: served.get("/status.json")["pending"] == 3, "all are accepted")
        served.process.send_signal(signal.SIGTERM)
        wait_until(lambda: served.get("/status.json")["draining"], "it is shutting down")
        late.sendall(request_bytes("POST", "/v2/models/m/infer", body, **headers))
        reply = read_reply(late)
        assert (reply.status, "retry-after" in reply.headers) == (503, True)
        for sock in socks:
            assert read_reply(sock).status == 200
            sock.close()
        late.close()
        assert served.process.wait(60) == 0


def test_a_switched_link_is_loaded_beside_and_swapped_without_a_failed_request(plans, tmp_path):
    link = tmp_path / "current"
    link.symlink_to(plans / "scale.plan")
    toml = f"[server]\nwatch_interval_s = 0.02\n[plans.m]\npath = '{link}'\nqueue_requests = 500\n"
    x = row_input()
    results: list[float] = []
    failures: list[object] = []
    stop = threading.Event()
    with serving(tmp_path, toml=toml) as served:

        def client() -> None:
            body, headers = infer_body(x)
            text = request_bytes("POST", "/v2/models/m/infer", body, **headers)
            with served.connect() as sock:
                while not stop.is_set():
                    sock.sendall(text)
                    reply = read_reply(sock)
                    if reply.status != 200:
                        failures.append(reply)
                    else:
                        results.append(float(reply.output()[0, 0]))

        threads = [threading.Thread(target=client) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for number in range(12):
                generation = served.get("/status.json")["plans"][0]["generation"]
                switch(link, plans / ("double.plan" if number % 2 == 0 else "scale.plan"))
                wait_until(
                    lambda g=generation: served.get("/status.json")["plans"][0]["generation"] > g,
                    "the new version serves",
                )
            settled = output(served, x)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert not failures
    assert set(results) == {0.5, 2.0}
    np.testing.assert_array_equal(settled, x * np.float32(0.5))


def switch(link: Path, target: Path) -> None:
    fresh = link.with_name("fresh")
    fresh.symlink_to(target)
    os.replace(fresh, link)


def test_a_broken_new_version_leaves_the_old_one_serving(plans, tmp_path):
    link = tmp_path / "current"
    link.symlink_to(plans / "scale.plan")
    toml = f"[server]\nwatch_interval_s = 0.02\nstate_dir = 'state'\n[plans.m]\npath = '{link}'\n"
    x = row_input()
    with serving(tmp_path, toml=toml) as served:
        switch(link, plans / "broken.plan")
        wait_until(
            lambda: served.get("/status.json")["plans"][0]["reason"], "the failure is reported"
        )
        assert "cut short" in served.get("/status.json")["plans"][0]["reason"]
        np.testing.assert_array_equal(output(served, x), x * np.float32(0.5))
        assert 'edgeplan_loads_total{model="m",version="1",result="failed"} 1' in (
            served.request("GET", "/metrics").body.decode()
        )
        os.kill(served.process.pid, signal.SIGKILL)
        served.process.wait()
    # A start with the broken version in place: the one that worked before serves.
    with serving(tmp_path, toml=toml) as served:
        np.testing.assert_array_equal(output(served, x), x * np.float32(0.5))
        assert "the configured plan failed" in served.get("/status.json")["plans"][0]["reason"]
        switch(link, plans / "double.plan")
        wait_until(lambda: output(served, x)[0, 0] == 2.0, "the repaired version serves")


def test_kill_9_at_any_point_of_a_switch_leaves_a_working_plan(plans, tmp_path):
    link = tmp_path / "current"
    link.symlink_to(plans / "scale.plan")
    toml = f"[server]\nwatch_interval_s = 0.01\nstate_dir = 'state'\n[plans.m]\npath = '{link}'\n"
    x = row_input()
    for number in range(6):
        with serving(tmp_path, toml=toml) as served:
            assert output(served, x)[0, 0] in (0.5, 2.0)
            switch(link, plans / ("double.plan", "broken.plan", "scale.plan")[number % 3])
            time.sleep(0.004 * number)  # the point varies; no outcome depends on it
            os.kill(served.process.pid, signal.SIGKILL)
            served.process.wait()
    with serving(tmp_path, toml=toml) as served:
        assert output(served, x)[0, 0] in (0.5, 2.0)


def test_sighup_reloads(plans, tmp_path):
    path = tmp_path / "m.plan"
    shutil.copy(plans / "scale.plan", path)
    toml = f"[server]\nwatch_interval_s = 0\n[plans.m]\npath = '{path}'\n"
    with serving(tmp_path, toml=toml) as served:
        shutil.copy(plans / "double.plan", tmp_path / "fresh")
        os.replace(tmp_path / "fresh", path)
        served.process.send_signal(signal.SIGHUP)
        wait_until(lambda: output(served, row_input())[0, 0] == 2.0, "the new version serves")


@pytest.mark.parametrize(
    "num_reloads", [150, pytest.param(10_000, marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_reloads_do_not_grow(plans, tmp_path, num_reloads):
    body, headers = infer_body(row_input())
    text = request_bytes("POST", "/v2/models/m/infer", body, **headers)
    statuses: Counter[int] = Counter()
    stop = threading.Event()
    with serving(tmp_path, plans={"m": plans / "scale.plan"}) as served, served.connect() as sock:

        def client() -> None:
            with served.connect() as own:
                while not stop.is_set():
                    own.sendall(text)
                    statuses[read_reply(own).status] += 1

        def reload(num: int) -> None:
            for _ in range(num):
                sock.sendall(request_bytes("POST", "/v2/repository/models/m/load", b"{}"))
                assert read_reply(sock).status == 200

        thread = threading.Thread(target=client)
        thread.start()
        try:
            reload(50 + num_reloads // 15)  # until the allocators have seen everything
            before, held = served.resident_bytes(), resources_of(served)
            reload(num_reloads)
            # Allocators settle within some hundred reloads, by about a megabyte.
            assert served.resident_bytes() - before < 2 << 20
            for name, num in resources_of(served).items():
                assert num <= held[name] + 10, name  # a retired version may still be closing
        finally:
            stop.set()
            thread.join()
        status = served.get("/status.json")
        assert status["plans"][0]["generation"] == num_reloads + num_reloads // 15 + 51
    assert set(statuses) == {200}
    assert statuses[200] > num_reloads


def resources_of(served) -> dict[str, int]:
    process = Path(f"/proc/{served.process.pid}")
    return {
        "mappings": len((process / "maps").read_text().splitlines()),
        "files": len(list((process / "fd").iterdir())),
        "threads": len(list((process / "task").iterdir())),
    }


def test_dry_run_tells_what_the_daemon_then_takes(plans, tmp_path):
    report = command("serve", "--dry-run", "--json", "--plan", f"m={plans / 'scale.plan'}")
    (device,) = report["devices"]
    assert report["fits"]
    with serving(tmp_path, plans={"m": plans / "scale.plan"}) as served:
        used = served.get("/status.json")["devices"][0]["used"]
    assert sum(used.values()) == device["needed_bytes"]
    assert used["arena"] == report["plans"][0]["arena_bytes"]
    assert used["io"] == report["plans"][0]["io_bytes"]


def test_a_plan_that_does_not_fit_is_refused_with_the_numbers_and_the_others_serve(plans, tmp_path):
    large = save(scale_plan((1,), row_elems=500_000), tmp_path / "large.plan")
    toml = (
        "[server]\ndevice_memory_bytes = 1000000\n"
        f"[plans.m]\npath = '{plans / 'scale.plan'}'\n"
        f"[plans.large]\npath = '{large}'\nrequired = false\n"
    )
    with serving(tmp_path, toml=toml) as served:
        assert output(served, row_input())[0, 0] == 0.5
        rows = {row["name"]: row for row in served.get("/status.json")["plans"]}
        assert rows["large"]["state"] == "UNAVAILABLE"
        assert "bindings 4,000,256" in rows["large"]["reason"]
        assert "of 1,000,000 bytes" in rows["large"]["reason"]
        assert served.request("GET", "/v2/health/ready").status == 200
    report = command(
        "serve", "--dry-run", "--json", "--config", str(tmp_path / "serve.toml"), status=1
    )
    assert not report["fits"]


def test_not_ready_while_a_required_plan_is_missing(plans, tmp_path):
    path = tmp_path / "m.plan"
    toml = f"[server]\nwatch_interval_s = 0.02\n[plans.m]\npath = '{path}'\n"
    with serving(tmp_path, toml=toml) as served:
        assert served.request("GET", "/v2/health/live").status == 200
        assert served.request("GET", "/v2/health/ready").status == 400
        reply = served.infer("m", row_input())
        assert (reply.status, "retry-after" in reply.headers) == (503, True)
        shutil.copy(plans / "scale.plan", tmp_path / "fresh")
        os.replace(tmp_path / "fresh", path)
        wait_until(
            lambda: served.request("GET", "/v2/health/ready").status == 200, "the plan serves"
        )


def test_two_streams_have_memory_of_their_own(plans, tmp_path):
    toml = (
        f"[plans.a]\npath = '{plans / 'scale.plan'}'\n"
        f"[plans.b]\npath = '{plans / 'double.plan'}'\nstream = 'second'\n"
    )
    with serving(tmp_path, toml=toml) as served:
        streams = served.get("/status.json")["devices"][0]["streams"]
        assert [row["name"] for row in streams] == ["cpu/default", "cpu/second"]
        for name, factor in (("a", 0.5), ("b", 2.0)):
            assert served.infer(name, row_input()).output()[0, 0] == factor


def test_a_token_is_wanted_for_everything_but_health(plans, tmp_path):
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123\n")
    token.chmod(0o600)
    with serving(tmp_path, "--token-file", token, plans={"m": plans / "scale.plan"}) as served:
        assert served.request("GET", "/v2/health/ready").status == 200
        for path in ("/v2", "/metrics", "/status.json", "/v2/models/m"):
            reply = served.request("GET", path)
            assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
        good = {"Authorization": "Bearer 0123456789abcdef0123"}
        assert served.request("GET", "/v2/models/m", **good).status == 200
        bad = {"Authorization": "Bearer 0123456789abcdef012"}
        assert served.request("GET", "/v2/models/m", **bad).status == 401
        body, headers = infer_body(row_input())
        assert served.request("POST", "/v2/models/m/infer", body, **headers).status == 401
        assert served.request("POST", "/v2/models/m/infer", body, **headers, **good).status == 200


def test_tls(plans, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no certificate can be made")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", "key.pem", "-out", "cert.pem"),
        ],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    toml = (
        "[server]\ntls_cert = 'cert.pem'\ntls_key = 'key.pem'\nhead_timeout_s = 1\n"
        f"[plans.m]\npath = '{plans / 'scale.plan'}'\n"
    )
    with serving(tmp_path, toml=toml) as served:
        context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        body, headers = infer_body(row_input())
        with context.wrap_socket(served.connect(), server_hostname="127.0.0.1") as sock:
            for _ in range(2):
                sock.sendall(request_bytes("POST", "/v2/models/m/infer", body, **headers))
                assert read_reply(sock).output()[0, 3] == 2.0
        with served.connect() as plain:
            plain.sendall(request_bytes("GET", "/v2"))
            assert plain.recv(100)[:4] != b"HTTP"


def test_the_unix_socket(plans, tmp_path):
    path = tmp_path / "s"
    with serving(tmp_path, "--unix", path, plans={"m": plans / "scale.plan"}):
        assert path.stat().st_mode & 0o777 == 0o660
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            body, headers = infer_body(row_input())
            sock.sendall(request_bytes("POST", "/v2/models/m/infer", body, **headers))
            assert read_reply(sock).status == 200
        done = subprocess.run(
            [
                *(sys.executable, "-m", "runtime_edge.cli", "serve", "--unix", str(path)),
                *("--plan", f"m={plans / 'scale.plan'}"),
            ],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 1
        assert "another process listens there" in done.stderr
    assert not path.exists()


def test_the_metrics_listener_has_nothing_else(plans, tmp_path):
    with serving(tmp_path, "--metrics", "127.0.0.1:0", plans={"m": plans / "scale.plan"}) as served:
        host, _, port = served.info["metrics"].rpartition(":")
        for path, status in (("/metrics", 200), ("/v2/health/ready", 200), ("/v2", 404)):
            with socket.create_connection((host, int(port))) as sock:
                sock.sendall(request_bytes("GET", path))
                assert read_reply(sock).status == status


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plan", "m"], "expected NAME=PATH"),
        ([], "nothing to serve"),
        (["--plan", "m=x", "--http", "0.0.0.0:0"], "there is no token"),
        (["--plan", "m=x", "--http", "nowhere"], "expected HOST:PORT"),
        (["--config", "missing.toml"], "missing.toml"),
    ],
)
def test_wrong_usage_is_one_line(tmp_path, arguments, message):
    done = subprocess.run(
        [sys.executable, "-m", "runtime_edge.cli", "serve", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_of_the_builder_and_no_numpy_is_loaded(plans, tmp_path):
    with serving(tmp_path, plans={"m": plans / "scale.plan"}) as served:
        maps = Path(f"/proc/{served.process.pid}/maps").read_text()
        assert "numpy" not in maps
        assert output(served, row_input())[0, 0] == 0.5


def command(*arguments: str, status: int = 0) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "runtime_edge.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


def test_a_switch_of_the_boards_plan_store_is_followed(plans, tmp_path):
    store = PlanStore(tmp_path)

    def deploy(name: str) -> None:
        content = (plans / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        (tmp_path / name).write_bytes(content)
        record = ReleaseRecord(digest[:16], digest, len(content), state=ReleaseState.CHECKED)
        store.add("m", tmp_path / name, record)
        store.activate("m", digest[:16])

    deploy("scale.plan")
    path = tmp_path / "plans" / "m" / "current" / "model.plan"
    assert path.resolve() == store.active("m").resolve()
    toml = f"[server]\nwatch_interval_s = 0.02\n[plans.m]\npath = '{path}'\n"
    with serving(tmp_path, toml=toml) as served:
        assert output(served, row_input())[0, 0] == 0.5
        deploy("double.plan")
        wait_until(lambda: output(served, row_input())[0, 0] == 2.0, "the new release serves")
        store.roll_back("m", "a test")
        wait_until(lambda: output(served, row_input())[0, 0] == 0.5, "the old release serves")
