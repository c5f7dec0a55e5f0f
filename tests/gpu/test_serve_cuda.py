"""The daemon on a real GPU: python -m pytest -m gpu tests/gpu/test_serve_cuda.py.

EDGEPLAN_SERVE_PLAN may name a plan for this GPU, which is then timed as well (input float32), and
EDGEPLAN_SERVE_ALLOW fingerprint fields that may differ, with commas between.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from support import cuda_plans
from support.cuda_compile import compile_cubin
from support.serving import infer_body, read_reply, request_bytes, serving

import runtime_edge as rt
from planformat.writer import save_plan
from runtime_edge.device.cuda_probe import probe_gpu

pytestmark = pytest.mark.gpu

X = np.linspace(-1, 1, 1000, dtype=np.float32).reshape(1, 1000)


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    capability = probe_gpu(0).fields["cuda.compute_capability"].replace(".", "")
    architecture = capability + ("a" if int(capability) >= 90 else "")
    code = compile_cubin(cuda_plans.CUDA_KERNELS, architecture)
    path = tmp_path_factory.mktemp("gpu") / "scale.plan"
    made = cuda_plans.plan(code, probe_gpu(0), architecture=f"sm_{architecture}")
    (variant,) = made.variants  # its other profiles misbehave on purpose
    variant = replace(variant, profiles=variant.profiles[:1])
    save_plan(replace(made, variants=(variant,)), path)
    return path


def test_two_plans_two_streams_and_priorities_in_the_trace(plan, tmp_path):
    toml = (
        "[server]\ntrace_events = 20000\n"
        f"[plans.a]\npath = '{plan}'\nqueue_requests = 1000\n"
        f"[plans.b]\npath = '{plan}'\nstream = 'second'\nqueue_requests = 1000\n"
    )
    expected = X * np.float32(cuda_plans.SCALE) + np.float32(cuda_plans.SHIFT)
    wrong = []

    with serving(tmp_path, toml=toml) as served:
        stop = time.monotonic() + 4.0

        def client(model, priority):
            body, headers = infer_body(X, priority=priority)
            text = request_bytes("POST", f"/v2/models/{model}/infer", body, **headers)
            with served.connect() as sock:
                while time.monotonic() < stop:
                    sock.sendall(text)
                    reply = read_reply(sock)
                    if reply.status != 200 or not np.array_equal(reply.output(), expected):
                        wrong.append(reply)

        users = [("a", 3)] * 6 + [("a", 1)] * 2 + [("b", 2)] * 4
        threads = [threading.Thread(target=client, args=user) for user in users]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        events = served.get("/trace.json?seconds=60")["traceEvents"]
        (device,) = served.get("/status.json")["devices"]
    assert [row["name"] for row in device["streams"]] == ["cuda:0/default", "cuda:0/second"]
    streams = {e["tid"]: e["args"]["name"] for e in events if e["ph"] == "M"}
    plans = {
        streams[e["tid"]]: e["name"]
        for e in events
        if e.get("cat") == "execution" and e["name"] in ("a", "b")
    }
    assert plans == {"stream cuda:0/default": "a", "stream cuda:0/second": "b"}
    waits = {
        priority: statistics.median(
            e["args"]["queue_us"]
            for e in events
            if e["ph"] == "b" and e["name"] == f"a priority {priority}"
        )
        for priority in (1, 3)
    }
    print(f"\nwaiting, median µs by priority: {waits}")
    assert waits[1] < waits[3] / 2


def test_latency_of_a_real_plan(tmp_path):
    path = os.environ.get("EDGEPLAN_SERVE_PLAN")
    if not path:
        pytest.skip("EDGEPLAN_SERVE_PLAN names no plan")
    allow = [f for f in os.environ.get("EDGEPLAN_SERVE_ALLOW", "").split(",") if f]
    toml = f"[plans.m]\npath = '{path}'\nallow = {allow}\n"
    with rt.load(path, allow=allow) as engine:
        name = engine.bindings[0].name
        x = np.random.default_rng(1).random(engine.binding_shape(name), np.float32)
        with engine.create_context() as context:
            (expected,) = context.execute({name: x}).values()
            direct = []
            for _ in range(200):
                begin = time.perf_counter_ns()
                context.execute({name: x})
                direct.append((time.perf_counter_ns() - begin) / 1e3)
    body, headers = infer_body(x, name)
    text = request_bytes("POST", "/v2/models/m/infer", body, **headers)
    with serving(tmp_path, toml=toml) as served, served.connect() as sock:
        times = []
        for _ in range(300):
            begin = time.perf_counter_ns()
            sock.sendall(text)
            reply = read_reply(sock)
            times.append((time.perf_counter_ns() - begin) / 1e3)
        np.testing.assert_array_equal(reply.output(expected.dtype), expected)
        print(
            f"\nexecute {statistics.median(direct):.0f} µs, served "
            f"{statistics.median(times[50:]):.0f} µs, {x.nbytes:,} B input, resident "
            f"{served.resident_bytes() >> 20} MiB, {served.info['ready_ms']} ms to ready"
        )
        stats = served.get("/v2/models/m/stats")["model_stats"][0]["inference_stats"]
        print({k: round(v["ns"] / max(1, v["count"]) / 1e3) for k, v in stats.items()})
