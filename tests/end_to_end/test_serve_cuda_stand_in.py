"""The daemon with CUDA plans on the stand-in driver: streams, memory, a hung kernel, a lost GPU."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from support import fake_libcuda
from support.serving import infer_body, request_bytes, serving, wait_until

X = np.linspace(-1, 1, 1000, dtype=np.float32).reshape(1, 1000)
ONE = np.ones((1, 1), np.float32)
# Python runs this at the start of each process: as if a driver and pycuda were installed.
SITE = """
import sys
from support import fake_libcuda
fake_libcuda.load()
from support.fake_libcuda import pycuda_stand_in
sys.modules.update(pycuda_stand_in.as_modules())
"""
MAKE_PLANS = """
import sys
from dataclasses import replace
from planformat.writer import save_plan
from runtime_edge.device.cuda_probe import probe_gpu
from support import cuda_plans, fake_libcuda
code = fake_libcuda.compile_kernels(cuda_plans.HOST_KERNELS)
plan = cuda_plans.plan(code, probe_gpu(0), architecture="sm_87")
(variant,) = plan.variants
for profile in variant.profiles:
    one = replace(variant, profiles=(profile,))
    save_plan(replace(plan, variants=(one,)), f"{sys.argv[1]}/{profile.name}.plan")
"""


@pytest.fixture(scope="module")
def gpu(tmp_path_factory):
    """Folder with plans, and the environment of a machine with the stand-in GPU."""
    folder = tmp_path_factory.mktemp("gpu")
    (folder / "sitecustomize.py").write_text(SITE)
    fake_libcuda.library_path()
    path = os.pathsep.join([str(folder), *(entry for entry in sys.path if entry)])
    environment = {"PYTHONPATH": path}
    subprocess.run(
        [sys.executable, "-c", MAKE_PLANS, str(folder)],
        check=True,
        env={**os.environ, **environment},
    )
    return folder, environment


def test_two_streams_serve_what_the_plan_computes(gpu, tmp_path):
    folder, environment = gpu
    toml = (
        f"[plans.a]\npath = '{folder / 'fast.plan'}'\n"
        f"[plans.b]\npath = '{folder / 'fast.plan'}'\nstream = 'second'\n"
        f"[plans.c]\npath = '{folder / 'reverse.plan'}'\n"
    )
    with serving(tmp_path, toml=toml, environment=environment) as served:
        expected = {"a": X * np.float32(0.5) + 3, "b": X * np.float32(0.5) + 3, "c": X[:, ::-1]}
        for _ in range(3):
            for name, y in expected.items():
                np.testing.assert_array_equal(served.infer(name, X).output(), y)
        (device,) = served.get("/status.json")["devices"]
        assert [row["name"] for row in device["streams"]] == ["cuda:0/default", "cuda:0/second"]
        metrics = served.request("GET", "/metrics").body.decode()
        assert 'nv_gpu_memory_total_bytes{gpu_uuid="cuda:0"} 1073741824\n' in metrics
        (used,) = (
            line.rsplit(" ", 1)[1]
            for line in metrics.splitlines()
            if line.startswith("nv_gpu_memory_used_bytes{")
        )
        for _ in range(50):
            served.infer("a", X)
            served.request("POST", "/v2/repository/models/b/load", b"{}")
        wait_until(
            lambda: (
                f'nv_gpu_memory_used_bytes{{gpu_uuid="cuda:0"}} {used}\n'
                in served.request("GET", "/metrics").body.decode()
            ),
            "reloads and requests leave the GPU's memory as it was",
        )


def test_a_kernel_that_hangs_at_a_request_starves_the_watchdog(gpu, tmp_path):
    folder, environment = gpu
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        environment = {
            **environment,
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "400000",
        }
        plans = {"gate": folder / "gate.plan"}
        with serving(tmp_path, plans=plans, environment=environment) as served:
            np.testing.assert_array_equal(served.infer("gate", ONE).output(), ONE)
            wait_until(lambda: num_pings(manager, 1.0) >= 2, "inferences feed the watchdog")
            body, headers = infer_body(np.zeros((1, 1), np.float32))  # it waits for another number
            with served.connect() as sock:
                sock.sendall(request_bytes("POST", "/v2/models/gate/infer", body, **headers))
                wait_until(lambda: num_pings(manager, 2.0) == 0, "the watchdog starves")
                assert num_pings(manager, 1.0) == 0
                assert served.request("GET", "/v2/health/live").status == 200
            served.process.send_signal(signal.SIGKILL)
            served.process.wait()


def num_pings(manager: socket.socket, seconds: float) -> int:
    end = time.monotonic() + seconds
    num = 0
    while (left := end - time.monotonic()) > 0:
        manager.settimeout(left)
        try:
            num += manager.recv(4096) == b"WATCHDOG=1"
        except TimeoutError:
            break
    return num


def test_a_plan_that_takes_the_gpu_along_is_left_out_at_the_third_start(gpu, tmp_path):
    folder, environment = gpu
    toml = (
        "[server]\nstate_dir = 'state'\n"
        f"[plans.fault]\npath = '{folder / 'fault.plan'}'\nrequired = false\n"
        f"[plans.fast]\npath = '{folder / 'fast.plan'}'\n"
    )
    for _ in range(2):
        with serving(tmp_path, toml=toml, environment=environment, expect_ready=False) as served:
            assert served.process.wait(30) == 71  # for the service manager to start it again
            assert "is lost" in served.log()
    with serving(tmp_path, toml=toml, environment=environment) as served:
        rows = {row["name"]: row for row in served.get("/status.json")["plans"]}
        assert "2 processes ended while they loaded it" in rows["fault"]["reason"]
        np.testing.assert_array_equal(served.infer("fast", X).output(), X * np.float32(0.5) + 3)
