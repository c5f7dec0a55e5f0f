"""The daemon under load: overhead, capacity, tail latency, overload, memory, start, reloads.

    python -m benchmarks.bench_serve [--model M.onnx] [--duration 10] [--json out.json]

Builds a plan (one thread, so that a core is left for the clients), starts `edgeplan serve` and, for
comparison, a minimal onnxruntime + FastAPI server with the same model, each in its own process.
The peer needs `pip install onnxruntime fastapi uvicorn`; `--only load` and `--only reloads` do not.

- Overhead: single requests over one connection, taken in turn with `ExecutionContext.execute` in
  this process and with the peer. `execute` is timed twice: after a pause as long as a request takes
  (`paced`: what a program without a daemon sees that does something else in between), and again
  right behind it (`warm`: caches and cores at their best). Then the processor time of the daemon's
  threads per request, which other processes change little; the plan's own is that of `execute`.
- Load: an open-loop generator in a third process sends at set times, whatever the server does;
  latency counts from the scheduled time, so a stalled server is not excused. Evenly paced, and at
  random (Poisson) times: with those, queueing alone gives p99 of about four medians at 80 % load
  (one server, constant service time), however good the server is.

The machine's cores are shared by server and generator; figures are ratios within one run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "tests" / "data" / "onnx" / "light" / "light_squeezenet.onnx"
CONNECTIONS = 160  # more than the queue takes, so that overload reaches the server
WARM_UP = 10

PEER = """
import sys, numpy as np, onnxruntime as ort, uvicorn
from fastapi import FastAPI, Request, Response
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
(source,) = [i for i in session.get_inputs()]
shape = [int(extent) for extent in source.shape]
app = FastAPI()

@app.post("/infer")
async def infer(request: Request) -> Response:
    x = np.frombuffer(await request.body(), np.float32).reshape(shape)
    (y,) = session.run(None, {source.name: x})[:1]
    return Response(y.tobytes(), media_type="application/octet-stream")

uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="critical", access_log=False)
"""


class Connection:
    """One keep-alive connection that sends the same request again and again."""

    def __init__(self, address: tuple[str, int], request: bytes) -> None:
        self._sock = socket.create_connection(address, timeout=60)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = request

    def round_trip(self) -> tuple[int, dict[bytes, bytes], bytes]:
        """Send the request; status, headers and body of the response."""
        self._sock.sendall(self._request)
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._received()
        first, *lines = data[:end].split(b"\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(b":") for line in lines)}
        length = int(headers[b"content-length"])
        body = data[end + 4 :]
        while len(body) < length:
            body += self._received()
        return int(first.split()[1]), headers, body

    def close(self) -> None:
        self._sock.close()

    def _received(self) -> bytes:
        part = self._sock.recv(1 << 20)
        if not part:
            raise ConnectionError("the server closed the connection")
        return part


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", *headers, f"Content-Length: {len(body)}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def infer_request(name: str, x: np.ndarray, **parameters: Any) -> bytes:
    content = {
        "parameters": {"binary_data_output": True, **parameters},
        "inputs": [
            {
                "name": name,
                "shape": list(x.shape),
                "datatype": "FP32",
                "parameters": {"binary_data_size": x.nbytes},
            }
        ],
    }
    text = json.dumps(content).encode()
    header = f"Inference-Header-Content-Length: {len(text)}"
    return post("/v2/models/m/infer", text + x.tobytes(), header)


def offer_load(
    address: tuple[str, int],
    request: bytes,
    rate_per_s: float,
    duration_s: float,
    is_random: bool,
) -> dict[str, Any]:
    """Send at set times over CONNECTIONS connections; runs in a process of its own."""
    random.seed(7)
    times: list[float] = []
    at = 0.0
    while at < duration_s:
        at += random.expovariate(rate_per_s) if is_random else 1 / rate_per_s
        times.append(at)
    times.reverse()
    lock = threading.Lock()
    latencies: list[float] = []
    statuses: Counter[int] = Counter()
    without_retry = 0
    begin = time.perf_counter() + 0.3

    def user() -> None:
        nonlocal without_retry
        connection = Connection(address, request)
        while True:
            with lock:
                if not times:
                    break
                due = begin + times.pop()
            wait = due - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            status, headers, _ = connection.round_trip()
            end = time.perf_counter()
            with lock:
                statuses[status] += 1
                if status == 200:
                    latencies.append(end - due)
                elif b"retry-after" not in headers:
                    without_retry += 1
        connection.close()

    users = [threading.Thread(target=user) for _ in range(CONNECTIONS)]
    for thread in users:
        thread.start()
    for thread in users:
        thread.join()
    elapsed = time.perf_counter() - begin
    return {
        "offered_per_s": rate_per_s,
        "answered_per_s": statuses[200] / elapsed,
        "statuses": {str(status): num for status, num in statuses.items()},
        "refusals_without_retry_after": without_retry,
        "latency_ms": quantiles([value * 1e3 for value in latencies]),
    }


def closed_loop(address: tuple[str, int], request: bytes, duration_s: float) -> float:
    """Answers per second with four connections that never wait: the capacity."""
    counts = []
    end = time.perf_counter() + duration_s

    def user() -> None:
        connection = Connection(address, request)
        num = 0
        while time.perf_counter() < end:
            status, _, _ = connection.round_trip()
            num += status == 200
        counts.append(num)
        connection.close()

    users = [threading.Thread(target=user) for _ in range(4)]
    for thread in users:
        thread.start()
    for thread in users:
        thread.join()
    return sum(counts) / duration_s


def quantiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values) or [0.0]
    ranks = {"p20": 0.2, "p50": 0.5, "p80": 0.8, "p99": 0.99}
    return {
        name: round(ordered[min(len(ordered) - 1, int(rank * len(ordered)))], 3)
        for name, rank in ranks.items()
    }


@contextlib.contextmanager
def daemon(plan: Path, allow: str) -> Iterator[tuple[int, tuple[str, int], dict[str, Any]]]:
    """A daemon: process id, address, what it printed."""
    command = [sys.executable, "-m", "runtime_edge.cli", "serve", "--json"]
    command += ["--http", "127.0.0.1:0", "--plan", f"m={plan}", "--allow", allow]
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    try:
        info = json.loads(process.stdout.readline())
        info["start_to_ready_ms"] = round((time.perf_counter() - begin) * 1e3, 1)
        host, _, port = info["http"].rpartition(":")
        yield process.pid, (host, int(port)), info
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
        process.stdout.close()
        if status:
            raise RuntimeError(f"the daemon ended with status {status}")


@contextlib.contextmanager
def peer(model: Path) -> Iterator[tuple[str, int]]:
    """The same model with onnxruntime behind FastAPI."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", PEER, str(model), str(port)])
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield "127.0.0.1", port
    finally:
        process.terminate()
        process.wait(30)


def allowed(text: str) -> list[str]:
    return [field for field in text.split(",") if field]


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def thread_time_us(pid: int) -> float:
    """Processor time of all threads of a process so far, by the scheduler's clock."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((t / "schedstat").read_text().split()[0]) for t in threads) / 1e3


@contextlib.contextmanager
def most_resident(pid: int) -> Iterator[list[int]]:
    """A list whose only element is the largest resident memory seen so far, in bytes."""
    most = [0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            most[0] = max(most[0], resident_bytes(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        done.set()
        thread.join()


def overload_bytes(plan: Path, request_bytes: int) -> int:
    """What a daemon with default options may take beyond `ready`, see docs/daemon.md."""
    from runtime_edge.serve.config import PlanConfig

    bodies = PlanConfig("m", str(plan)).queue_bytes + request_bytes
    return bodies * 5 // 4 + CONNECTIONS * (64 << 10)


def get_json(address: tuple[str, int], path: str) -> Any:
    with socket.create_connection(address, timeout=30) as sock:
        sock.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        data = b""
        while part := sock.recv(1 << 16):
            data += part
    return json.loads(data.partition(b"\r\n\r\n")[2])


def measure_overhead(plan: Path, model: Path, rounds: int, allow: str) -> dict[str, Any]:
    """One request at a time, in turn: in process, daemon, peer."""
    import runtime_edge as rt

    engine = rt.load(plan, allow=allowed(allow))
    name = engine.bindings[0].name
    shape = engine.binding_shape(name)
    x = np.random.default_rng(1).random(shape, np.float32)
    with (
        engine.create_context() as context,
        daemon(plan, allow) as (pid, address, _),
        peer(model) as other,
    ):
        served = Connection(address, infer_request(name, x))
        compared = Connection(other, post("/infer", x.tobytes()))
        (expected,) = context.execute({name: x}).values()
        status, headers, body = served.round_trip()
        size = int(headers[b"inference-header-content-length"])
        if status != 200 or body[size:] != expected.tobytes():
            raise RuntimeError("the daemon's result is not that of execute()")
        _, _, theirs = compared.round_trip()
        difference = np.abs(np.frombuffer(theirs, np.float32) - expected.reshape(-1)).max()
        if difference > 1e-3:
            raise RuntimeError(f"the peer computes something else: {difference}")
        execute = partial(context.execute, {name: x})
        sides: dict[str, Callable[[], object]] = {
            "paced": execute,
            "warm": execute,
            "daemon": served.round_trip,
            "peer": compared.round_trip,
        }
        rows: dict[str, list[float]] = {side: [] for side in sides}
        for number in range(rounds + WARM_UP):
            if number == WARM_UP:
                busy_us = -thread_time_us(pid)
            time.sleep(rows["daemon"][-1] / 1e6 if number else 0.0)
            for side, action in sides.items():
                begin = time.perf_counter_ns()
                action()
                rows[side].append((time.perf_counter_ns() - begin) / 1e3)
        busy_us += thread_time_us(pid)
        begin = time.thread_time_ns()
        for _ in range(rounds):
            execute()
        own_us = (time.thread_time_ns() - begin) / 1e3
        served.close()
        compared.close()
    rows = {side: values[WARM_UP:] for side, values in rows.items()}
    over = {
        side: [d - e for d, e in zip(rows["daemon"], rows[side], strict=True)]
        for side in ("paced", "warm")
    }
    return {
        "input_bytes": x.nbytes,
        "latency_us": {side: quantiles(values) for side, values in rows.items()},
        "overhead_us": {side: quantiles(values) for side, values in over.items()},
        "daemon_cpu_us_per_request": round(busy_us / rounds, 1),
        "execute_cpu_us": round(own_us / rounds, 1),
        "peer_over_daemon": round(
            quantiles(rows["peer"])["p50"] / quantiles(rows["daemon"])["p50"], 3
        ),
    }


def measure_load(plan: Path, duration_s: float, allow: str) -> dict[str, Any]:
    """Capacity, 80 % of it, three times it; memory before and after."""
    import runtime_edge as rt

    with rt.load(plan, allow=allowed(allow)) as engine:
        name = engine.bindings[0].name
        x = np.random.default_rng(1).random(engine.binding_shape(name), np.float32)
        taken = len(plan.read_bytes()) + engine.context_bytes()
    request = infer_request(name, x)
    with daemon(plan, allow) as (pid, address, info):
        memory = {"ready": resident_bytes(pid)}
        capacity = in_process(closed_loop, address, request, duration_s)
        memory["after_capacity"] = resident_bytes(pid)
        rate = 0.8 * capacity
        paced = in_process(offer_load, address, request, rate, duration_s, False)
        poisson = in_process(offer_load, address, request, rate, duration_s, True)
        again = in_process(closed_loop, address, request, duration_s)
        with most_resident(pid) as most:
            overload = in_process(offer_load, address, request, 3.0 * capacity, duration_s, True)
        memory["most_in_overload"] = most[0]
        memory["after_overload"] = resident_bytes(pid)
        memory["bound"] = memory["ready"] + overload_bytes(plan, len(request))
        late = get_json(address, "/status.json")["plans"][0]["late"]
    return {
        "start_to_ready_ms": info["start_to_ready_ms"],
        "plan_and_arena_bytes": taken,
        "resident_bytes": memory,
        "resident_over_plan_bytes": memory["ready"] - taken,
        "capacity_per_s": [round(capacity, 2), round(again, 2)],
        "at_80_percent": with_ratio(paced),
        "at_80_percent_poisson": with_ratio(poisson),
        "at_300_percent": {
            **overload,
            "goodput_of_capacity": round(overload["answered_per_s"] / max(capacity, again), 3),
            "late": late,
        },
    }


def with_ratio(load: dict[str, Any]) -> dict[str, Any]:
    latency = load["latency_ms"]
    return {**load, "p99_over_p50": round(latency["p99"] / max(1e-9, latency["p50"]), 2)}


def measure_reloads(plan: Path, num: int, allow: str) -> dict[str, Any]:
    """Reload again and again while clients keep asking."""
    import runtime_edge as rt

    with rt.load(plan, allow=allowed(allow)) as engine:
        name = engine.bindings[0].name
        x = np.random.default_rng(1).random(engine.binding_shape(name), np.float32)
    request = infer_request(name, x)
    statuses: Counter[int] = Counter()
    stop = threading.Event()
    with daemon(plan, allow) as (pid, address, _):

        def user() -> None:
            connection = Connection(address, request)
            while not stop.is_set():
                statuses[connection.round_trip()[0]] += 1
            connection.close()

        users = [threading.Thread(target=user) for _ in range(2)]
        for thread in users:
            thread.start()
        reloader = Connection(address, post("/v2/repository/models/m/load", b"{}"))
        resident = []
        failed = 0
        for number in range(num):
            failed += reloader.round_trip()[0] != 200
            if number % max(1, num // 10) == max(1, num // 10) - 1:
                resident.append(resident_bytes(pid))
        stop.set()
        for thread in users:
            thread.join()
        reloader.close()
    return {
        "reloads": num,
        "failed_reloads": failed,
        "statuses": {str(status): count for status, count in statuses.items()},
        "resident_bytes": resident,
    }


def in_process(function: Any, *arguments: Any) -> Any:
    """Call a function in a fresh process: the generator shall not share an interpreter."""
    import multiprocessing

    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--plan", type=Path, help="of the model, instead of building one")
    parser.add_argument(
        "--allow", default="", help="fingerprint fields in which the plan may differ"
    )
    parser.add_argument("--duration", type=float, default=10.0, help="seconds of each load")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--reloads", type=int, default=200)
    parser.add_argument(
        "--only", choices=("overhead", "load", "reloads"), help="one of the three parts"
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        plan = args.plan
        if plan is None:
            import builder_host as bh

            plan = Path(folder) / "m.plan"
            network = bh.import_onnx(args.model)
            bh.build(network, bh.BuilderConfig(target="host-cpu", num_threads=1)).save(plan)
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "overhead": lambda: measure_overhead(plan, args.model, args.rounds, args.allow),
            "load": lambda: measure_load(plan, args.duration, args.allow),
            "reloads": lambda: measure_reloads(plan, args.reloads, args.allow),
        }
        result: dict[str, Any] = {"load_average": os.getloadavg()}
        for name, measure in parts.items():
            if args.only in (None, name):
                result[name] = measure()
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
