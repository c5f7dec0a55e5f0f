"""The daemon's HTTP side with raw sockets: framing, limits, refusals, hostile clients."""

from __future__ import annotations

import json
import random
import re
import socket
import threading
import time

import numpy as np
import pytest
from support.serve_plans import row_input, save, scale_plan, slow_plan, two_input_plan
from support.serving import (
    Reply,
    Served,
    infer_body,
    read_reply,
    request_bytes,
    serving,
    wait_until,
)

TOML = """
[server]
head_timeout_s = 0.6
body_timeout_s = 0.8
max_connections = 24
trace_events = 100
[plans.scale]
path = "scale.plan"
[plans.batched]
path = "batched.plan"
batch_delay_us = 20000
[plans.together]
path = "batched.plan"
batch_delay_us = 2000000
[plans.two]
path = "two.plan"
[plans.slow]
path = "slow.plan"
queue_requests = 4
queue_ms = 60000
[plans.slower]
path = "slower.plan"
queue_ms = 60000
"""
SLOW_TIMES = 4000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    save(scale_plan(), folder / "scale.plan")
    save(scale_plan((1, 2, 4)), folder / "batched.plan")
    save(two_input_plan(), folder / "two.plan")
    save(slow_plan(SLOW_TIMES), folder / "slow.plan")
    save(slow_plan(60_000), folder / "slower.plan")  # 0.6 s on a fast machine
    return folder


@pytest.fixture(scope="module")
def served(folder):
    with serving(folder, toml=TOML) as served:
        yield served
        assert served.process.poll() is None
        assert "Traceback" not in served.log()


def check_alive(served: Served) -> None:
    reply = served.infer("scale", row_input())
    assert reply.status == 200, reply
    np.testing.assert_array_equal(reply.output(), row_input() * np.float32(0.5))


def test_two_inputs_and_an_echoed_id(served):
    x, w = row_input(), np.array([3.0, 0.0], np.float32)
    content = {
        "id": 'with "quotes" and \\u0000',
        "inputs": [
            {"name": "w", "shape": [2], "datatype": "FP32", "data": w.tolist()},
            {"name": "x", "shape": [1, 1000], "datatype": "FP32", "data": x.tolist()},
        ],
    }
    reply = served.request("POST", "/v2/models/two/versions/1/infer", json.dumps(content).encode())
    answer = reply.json()
    assert answer["id"] == content["id"]
    assert answer["model_name"] == "two"
    assert answer["outputs"][0]["shape"] == [1, 1000]
    np.testing.assert_array_equal(np.array(answer["outputs"][0]["data"], np.float32), x[0] * 3)


def test_a_body_without_json_is_the_only_input(served):
    x = row_input(5.0)
    headers = {"Inference-Header-Content-Length": "0"}
    reply = served.request("POST", "/v2/models/scale/infer", x.tobytes(), **headers)
    np.testing.assert_array_equal(reply.output(), x * np.float32(0.5))
    reply = served.request("POST", "/v2/models/scale/infer", x.tobytes()[4:], **headers)
    assert reply.status == 400


def test_any_batch_is_padded_or_split(served):
    for rows in (1, 2, 3, 4, 5, 9):
        x = row_input(rows=rows)
        reply = served.infer("batched", x)
        np.testing.assert_array_equal(reply.output(), x * np.float32(0.5))


def test_requests_at_the_same_time_share_executions(served):
    before = served.get("/v2/models/together/stats")["model_stats"][0]
    barrier = threading.Barrier(8)
    wrong = []

    def client(number: int) -> None:
        x = row_input(float(number))
        with served.connect() as sock:
            barrier.wait()
            for _ in range(5):
                body, headers = infer_body(x)
                sock.sendall(request_bytes("POST", "/v2/models/together/infer", body, **headers))
                if not np.array_equal(read_reply(sock).output(), x * np.float32(0.5)):
                    wrong.append(number)

    threads = [threading.Thread(target=client, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = served.get("/v2/models/together/stats")["model_stats"][0]
    assert not wrong
    assert after["inference_count"] - before["inference_count"] == 40
    # As a rule 10; each time that somebody is two seconds late costs one more.
    assert after["execution_count"] - before["execution_count"] < 30


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"\r\n\r\nGET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"HEAD /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"GET /v2 HTTP/1.0\r\n\r\n", 200),
        (b"BREW / HTTP/1.1\r\n\r\n", 400),
        (b"GET /v2 HTTP/2.0\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\nHost: localhost\n\n\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n bad: folded\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\n" + b"a: b\r\n" * 80 + b"\r\n", 431),
        (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET /%ff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /v2/models/../../etc HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
        (b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n\r\n", 403),
        (b"POST /v2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 405),
        (b"POST INFER HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST INFER HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1e3\r\n\r\n", 400),
        (b"POST INFER HTTP/1.1\r\nHost: localhost\r\nContent-Length: +5\r\n\r\nhello", 400),
        (
            b"POST INFER HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n"
            b"Content-Length: 5\r\n\r\nhello",
            400,
        ),
        (
            b"POST INFER HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            b"POST INFER HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            400,
        ),
        (
            b"POST INFER HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"zz\r\nhello\r\n0\r\n\r\n",
            400,
        ),
        (
            b"POST INFER HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"fffffffffffffffff\r\n",
            400,
        ),
        (b"POST INFER HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999\r\n\r\n", 413),
        (b"POST INFER HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 400),
        (
            b"POST INFER HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\n"
            b"Content-Length: 5\r\n\r\nhello",
            415,
        ),
    ],
)
def test_framing(served, request_text, status):
    text = request_text.replace(b"INFER", b"/v2/models/scale/infer")
    with served.connect() as sock:
        sock.sendall(text)
        reply = read_reply_of(sock, text)
        assert reply.status == status, reply
        if status >= 400 and reply.body:
            assert set(reply.json()) == {"error"}
    check_alive(served)


def read_reply_of(sock, text):
    if text.startswith(b"HEAD"):
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            data += sock.recv(4096)
        return Reply(int(data.split()[1]), {}, b"")
    return read_reply(sock)


def binary(x, **changes):
    """A correct request's JSON with parts replaced, and its raw bytes."""
    entry = {
        "name": "x",
        "shape": list(x.shape),
        "datatype": "FP32",
        "parameters": {"binary_data_size": x.nbytes},
        **changes,
    }
    return {"inputs": [entry]}, x.tobytes()


X = row_input()
MISTAKES = [
    ({"inputs": []}, b"", "input 'x' is missing"),
    ({}, b"", "'inputs' must be a list"),
    ({"inputs": [1]}, b"", "list of objects"),
    ([], b"", "must be a JSON object"),
    (*binary(X, name="z"), "has no input 'z'"),
    (*binary(X, datatype="FP16"), "datatype is 'FP16', expected FP32"),
    (*binary(X, shape=[1, 999]), "binary_data_size is 4,000"),
    (*binary(X, shape=[1, 10**30]), "whole numbers from 0"),
    (*binary(X, shape=[1 << 39, 1 << 39, 1 << 39]), "binary_data_size"),
    (*binary(X, shape=[True, 1000]), "whole numbers"),
    (*binary(X, shape=[-1, 1000]), "whole numbers"),
    (*binary(X, shape=[1.0, 1000]), "whole numbers"),
    (*binary(X, shape=[[1], 1000]), "whole numbers"),
    (*binary(X, shape=[1] * 17), "at most 16"),
    (*binary(X, shape=[1000, 1]), r"does not take x \[1000, 1\]; it takes x FP32 \[1, 1000\]"),
    (*binary(X, parameters={"binary_data_size": 1 << 61}), "binary_data_size is"),
    (*binary(X, parameters={"binary_data_size": "4000"}), "whole number"),
    (*binary(X, parameters=[]), "must be an object"),
    (*binary(X, parameters={"a": {}}), "string, number or boolean"),
    (*binary(X, data=[1]), "beside binary_data_size"),
    ({**binary(X)[0], "id": 7}, X.tobytes(), "'id' must be a string"),
    ({**binary(X)[0], "outputs": [{"name": "q"}]}, X.tobytes(), "no output 'q'"),
    (
        {**binary(X)[0], "outputs": [{"name": "y"}, {"name": "y"}]},
        X.tobytes(),
        "asked for twice",
    ),
    ({**binary(X)[0], "parameters": {"priority": 9}}, X.tobytes(), "out of range 1 to 3"),
    ({**binary(X)[0], "parameters": {"timeout": -1}}, X.tobytes(), "whole number"),
    (binary(X)[0], X.tobytes() + b"\0", "1 bytes of the body belong to no tensor"),
    (binary(X)[0], X.tobytes()[:-8], "ends 8 bytes too early"),
    ({"inputs": [binary(X)[0]["inputs"][0]] * 2}, X.tobytes() * 2, "given twice"),
]


@pytest.mark.parametrize(("content", "raw", "message"), MISTAKES)
def test_wrong_requests_are_refused_with_the_reason(served, content, raw, message):
    text = json.dumps(content).encode()
    reply = served.request(
        "POST",
        "/v2/models/scale/infer",
        text + raw,
        **{"Inference-Header-Content-Length": str(len(text))},
    )
    assert reply.status == 400, reply
    assert re.search(message, reply.json()["error"])
    check_alive(served)


@pytest.mark.parametrize(
    "text",
    [
        b'{"inputs":[{"name":"x","shape":[1,1000],"datatype":"FP32","data":[NaN]}]}',
        b'{"inputs":' + b"[" * 20000,
        b'{"inputs":' + b'{"a":' * 9000,
        b"\xff\xfe{}",
        b"{" + b'"a":1,' * 5000 + b'"a":1}',
        b"9" * 10000,
        b'"' + b"\\u0000" * 5000,
        b"",
    ],
)
def test_hostile_json(served, text):
    reply = served.request("POST", "/v2/models/scale/infer", text)
    assert reply.status == 400
    check_alive(served)


@pytest.mark.parametrize("header", ["5", "99999999", "-1", "x", "1" * 30, ""])
def test_a_wrong_json_length_is_refused(served, header):
    reply = served.request(
        "POST",
        "/v2/models/scale/infer",
        b'{"inputs":[]}',
        **{"Inference-Header-Content-Length": header},
    )
    assert reply.status == 400


def test_chunked_bodies_of_any_cut(served):
    body, headers = infer_body(X)
    random.seed(3)
    with served.connect() as sock:
        lines = [
            "POST /v2/models/scale/infer HTTP/1.1",
            "Host: localhost",
            "Transfer-Encoding: chunked",
            *(f"{k}: {v}" for k, v in headers.items()),
        ]
        sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        at = 0
        while at < len(body):
            size = min(random.choice((1, 2, 17, 900)), len(body) - at)
            sock.sendall(f"{size:x};ext=1\r\n".encode() + body[at : at + size] + b"\r\n")
            at += size
        sock.sendall(b"0\r\nTrailer: x\r\n\r\n")
        np.testing.assert_array_equal(read_reply(sock).output(), X * np.float32(0.5))


def test_pipelined_requests_are_answered_in_order(served):
    with served.connect() as sock:
        bodies = [infer_body(row_input(float(i))) for i in range(20)]
        sock.sendall(
            b"".join(
                request_bytes("POST", "/v2/models/scale/infer", body, **headers)
                for body, headers in bodies
            )
        )
        reader = ReplyReader(sock)
        for i in range(20):
            reply = reader.next()
            np.testing.assert_array_equal(reply.output(), row_input(float(i)) * np.float32(0.5))


class ReplyReader:
    """Reads responses one by one from a connection that may hold several."""

    def __init__(self, sock):
        self._sock = sock
        self._rest = b""

    def next(self):
        sock, data = self._sock, self._rest
        while b"\r\n\r\n" not in data:
            data += sock.recv(1 << 16)
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        length = int(headers["content-length"])
        while len(body) < length:
            body += sock.recv(1 << 16)
        self._rest = body[length:]
        return Reply(int(first.split()[1]), headers, body[:length])


def test_expect_100_continue(served):
    body, headers = infer_body(X)
    with served.connect() as sock:
        headers["Expect"] = "100-continue"
        text = request_bytes("POST", "/v2/models/scale/infer", body, **headers)
        head, _, _ = text.partition(b"\r\n\r\n")
        sock.sendall(head + b"\r\n\r\n")
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert read_reply(sock).status == 200
    with served.connect() as sock:
        text = request_bytes("POST", "/v2/models/nix/infer", body, **headers)
        head, _, _ = text.partition(b"\r\n\r\n")
        sock.sendall(head + b"\r\n\r\n")
        assert read_reply(sock).status == 404


def test_bytes_one_at_a_time_are_a_request(served):
    with served.connect() as sock:
        for byte in b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n":
            sock.sendall(bytes([byte]))
        assert read_reply(sock).status == 200


@pytest.mark.parametrize(
    "begin",
    [
        b"GET /v2 HTTP/1.1\r\nX-Slow: ",
        request_bytes("POST", "/v2/models/scale/infer", bytes(100))[:-50],
        b"POST /v2/models/scale/infer HTTP/1.1\r\nHost: localhost\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n5\r\n",
    ],
    ids=["head", "body", "chunks"],
)
def test_slow_clients_are_cut_off_and_hurt_nobody(served, begin):
    socks = [served.connect() for _ in range(15)]
    try:
        for sock in socks:
            sock.sendall(begin)
        check_alive(served)
        for sock in socks:
            sock.settimeout(10)
            assert read_reply(sock).status == 408
            with pytest.raises(ConnectionError):
                read_reply(sock)
    finally:
        for sock in socks:
            sock.close()
    check_alive(served)


def test_idle_connections_make_room_for_new_ones(served):
    socks = [served.connect() for _ in range(24)]
    try:
        for sock in socks:
            sock.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            read_reply(sock)
        for _ in range(5):
            check_alive(served)
    finally:
        for sock in socks:
            sock.close()


def test_a_full_queue_is_a_503_with_retry_after_and_the_connection_stays(served):
    def counts() -> tuple[int, int, int]:
        """Of this plan: answered and refused since the start; of all: accepted and unanswered."""
        status = served.get("/status.json")
        plan = next(plan for plan in status["plans"] if plan["name"] == "slow")
        return plan["success"], plan["refused"], status["pending"]

    before = sum(counts())
    refused_before = counts()[1]
    socks = [served.connect() for _ in range(20)]
    try:
        body, headers = infer_body(X)
        for sock in socks:
            sock.sendall(request_bytes("POST", "/v2/models/slow/infer", body, **headers))
        _, refused, pending = wait_until(
            lambda: now if sum(now := counts()) == before + 20 else None, "all have arrived"
        )
        assert pending <= 5  # four in the queue, one runs
        replies = [read_reply(sock) for sock in socks]
        statuses = [reply.status for reply in replies]
        assert set(statuses) == {200, 503}
        assert statuses.count(503) == refused - refused_before
        for reply in replies:
            if reply.status == 503:
                assert int(reply.headers["retry-after"]) >= 1
                assert "connection" not in reply.headers
        refused = socks[statuses.index(503)]
        refused.sendall(request_bytes("GET", "/v2/health/live"))
        assert read_reply(refused).status == 200
    finally:
        for sock in socks:
            sock.close()
    stats = served.request("GET", "/metrics").body.decode()
    assert 'edgeplan_refused_total{model="slow",version="1",reason="queue_requests"}' in stats


def test_what_cannot_be_met_is_refused_at_once(served):
    latency_us = next(
        float(line.rsplit(" ", 1)[1])
        for line in served.request("GET", "/metrics").body.decode().splitlines()
        if line.startswith('edgeplan_profile_latency_us{model="slow"')
    )
    start = time.monotonic()
    reply = served.infer("slow", X, timeout=int(latency_us / 4))
    assert reply.status == 503
    assert "deadline" in reply.json()["error"]
    assert time.monotonic() - start < latency_us / 1e6 + 5
    reply = served.infer("slow", X, timeout=int(latency_us * 50) + 2_000_000)
    assert reply.status == 200


def test_a_client_that_goes_cancels_its_request(served):
    def cancelled() -> float:
        text = served.request("GET", "/metrics").body.decode()
        line = 'nv_inference_request_failure{model="slower",version="1",reason="CANCELED"}'
        return float(next(x for x in text.splitlines() if x.startswith(line)).split()[-1])

    before = cancelled()
    body, headers = infer_body(X)
    socks = [served.connect() for _ in range(4)]
    for sock in socks:
        sock.sendall(request_bytes("POST", "/v2/models/slower/infer", body, **headers))
    wait_until(lambda: served.get("/status.json")["pending"] >= 3, "requests are queued")
    executions = served.get("/v2/models/slower/stats")["model_stats"][0]["execution_count"]
    for sock in socks:
        sock.close()
    wait_until(lambda: served.get("/status.json")["pending"] == 0, "nothing is pending")
    assert cancelled() - before >= 3
    done = served.get("/v2/models/slower/stats")["model_stats"][0]["execution_count"]
    assert done - executions <= 2


def test_resets_in_the_middle_of_everything(served):
    random.seed(11)
    body, headers = infer_body(X)
    text = request_bytes("POST", "/v2/models/scale/infer", body, **headers)
    for _ in range(60):
        sock = served.connect()
        sock.sendall(text[: random.randrange(1, len(text) + 1)])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()

    def is_calm() -> bool:
        reply = served.request("GET", "/status.json")
        if reply.status == 503:  # accepted together with all the others
            return False
        content = reply.json()
        return (content["pending"], content["connections"]) == (0, 1)

    wait_until(is_calm, "nothing is pending, and only ours is open")
    metrics = served.request("GET", "/metrics").body.decode()
    assert "\nedgeplan_body_bytes 0\n" in metrics
    check_alive(served)


def test_random_bytes_never_get_a_5xx_and_never_hang(served):
    random.seed(12)
    body, headers = infer_body(X)
    good = request_bytes("POST", "/v2/models/scale/infer", body, **headers)
    for _ in range(150):
        text = bytearray(good)
        for _ in range(random.randrange(1, 6)):
            text[random.randrange(min(len(text), 400))] = random.randrange(256)
        with served.connect() as sock:
            sock.settimeout(10)
            sock.sendall(text)
            sock.shutdown(socket.SHUT_WR)
            try:
                reply = read_reply(sock)
            except ConnectionError:
                continue  # an unfinished request, and the client has gone
            assert reply.status < 500, (reply, bytes(text[:400]))
    check_alive(served)


def test_metrics_are_prometheus_text(served):
    text = served.request("GET", "/metrics").body.decode()
    seen = set()
    for line in text.splitlines():
        if line.startswith("# "):
            continue
        series, _, value = line.rpartition(" ")
        float(value)
        assert series not in seen
        seen.add(series)
    for name in (
        "nv_inference_request_success",
        "nv_inference_request_failure",
        "nv_inference_count",
        "nv_inference_exec_count",
        "nv_inference_pending_request_count",
        "nv_inference_request_duration_us",
        "nv_inference_queue_duration_us",
        "nv_inference_compute_input_duration_us",
        "nv_inference_compute_infer_duration_us",
        "nv_inference_compute_output_duration_us",
    ):
        assert f'{name}{{model="scale",version="1"' in text


def test_the_trace_shows_every_request_in_its_execution(served):
    for _ in range(3):
        check_alive(served)
    events = served.get("/trace.json?seconds=60")["traceEvents"]
    executions = [e for e in events if e.get("cat") == "execution" and e["name"] == "scale"]
    assert len(executions) >= 3
    for event in executions:
        assert event["dur"] > 0
        assert event["args"]["priorities"] == [2]
    begun = {e["id"] for e in events if e["ph"] == "b"}
    ended = {e["id"] for e in events if e["ph"] == "e"}
    assert begun == ended


def test_padding_is_counted(served):
    def padded() -> int:
        text = served.request("GET", "/metrics").body.decode()
        start = 'edgeplan_padded_rows_total{model="batched",version="1"} '
        return int(next(x for x in text.splitlines() if x.startswith(start)).split()[-1])

    before = padded()
    for rows, more in ((1, 0), (3, 1), (4, 0), (5, 0), (7, 1), (9, 0)):
        served.infer("batched", row_input(rows=rows))
        assert padded() - before == more, rows
        before = padded()
