"""More than the daemon can do: who is refused, when, and what memory it takes."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections import Counter

import numpy as np
import pytest
from support.serve_plans import save, scale_plan, slow_plan
from support.serving import (
    TIMEOUT_S,
    Reply,
    infer_body,
    read_reply,
    request_bytes,
    serving,
    wait_until,
)

ROW_ELEMS = 150_000
BODY_BYTES = 4 * ROW_ELEMS
X = np.ones((1, ROW_ELEMS), np.float32)
QUEUE_BYTES = 4 << 20
NUM_CLIENTS = 30
TOML = f"""
[server]
body_timeout_s = 60
write_timeout_s = 60
[plans.slow]
path = "slow.plan"
queue_bytes = {QUEUE_BYTES}
[plans.few]
path = "few.plan"
queue_requests = 3
[plans.wide]
path = "wide.plan"
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("overload")
    save(slow_plan(400, row_elems=ROW_ELEMS), folder / "slow.plan")
    save(scale_plan(), folder / "few.plan")
    save(scale_plan(row_elems=2_500_000), folder / "wide.plan")
    with serving(folder, toml=TOML) as served:
        yield served
        assert "Traceback" not in served.log()


def head_of(served, model: str, elems: int, **headers: str) -> bytes:
    body, more = infer_body(np.ones((1, elems), np.float32))
    text = request_bytes("POST", f"/v2/models/{model}/infer", body, **more, **headers)
    return text[: len(text) - len(body)]


def in_use(served) -> int:
    """Bytes of bodies and answers that the daemon holds."""
    text = served.request("GET", "/metrics").body.decode()
    return int(next(x for x in text.splitlines() if x.startswith("edgeplan_body_bytes")).split()[1])


def test_resident_memory_stays_within_its_bound_when_far_too_much_is_offered(served):
    body, headers = infer_body(X)
    text = request_bytes("POST", "/v2/models/slow/infer", body, **headers)
    statuses: Counter[int] = Counter()
    without_advice: list[object] = []
    stop = threading.Event()

    def client() -> None:
        while not stop.is_set():
            with served.connect() as sock:
                while not stop.is_set():
                    sock.sendall(text)
                    reply = read_reply(sock)
                    statuses[reply.status] += 1
                    if reply.status == 503 and "retry-after" not in reply.headers:
                        without_advice.append(reply)
                    if reply.status == 408:  # its body took over a second: the machine is loaded
                        break

    assert served.infer("slow", X).status == 200
    before = served.resident_bytes()
    threads = [threading.Thread(target=client) for _ in range(NUM_CLIENTS)]
    for thread in threads:
        thread.start()
    most = 0
    try:
        deadline = time.monotonic() + 4 * TIMEOUT_S
        while statuses[503] < 300 or statuses[200] < 60:
            assert time.monotonic() < deadline, statuses
            most = max(most, served.resident_bytes())
            time.sleep(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(statuses) - {408} == {200, 503}
    assert not without_advice
    # What may wait and the one that runs, in blocks of up to a quarter more; 64 KiB for the
    # buffers of each connection; 2 MiB for what the interpreter's allocator keeps.
    bound = (QUEUE_BYTES + BODY_BYTES) * 5 // 4 + NUM_CLIENTS * (64 << 10) + (2 << 20)
    assert bound < NUM_CLIENTS * BODY_BYTES * 3 // 5  # what all bodies at once would take is more
    assert most - before <= bound
    wait_until(lambda: in_use(served) == 0, "all bodies are given back")


def test_a_head_for_which_there_is_no_place_is_refused_before_its_body_is_sent(served):
    def num_coming() -> int:
        return served.get("/status.json")["plans"][1]["coming"]

    def ask() -> Reply | None:
        """The answer while others hold all places; None when one has done so for too long."""
        held = [served.connect() for _ in range(3)]
        try:
            for sock in held:
                sock.sendall(head_of(served, "few", 1000) + b"{")
            wait_until(lambda: num_coming() == 3, "all are coming")
            with served.connect() as sock:
                sock.sendall(head_of(served, "few", 1000, Expect="100-continue"))
                reply = read_reply(sock)
        finally:
            for sock in held:
                sock.close()
        wait_until(lambda: num_coming() == 0, "places are back")
        return None if reply.status == 100 else reply

    reply = wait_until(ask, "a refusal in the second in which the places are safe")
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert "3 requests wait" in reply.json()["error"]


def test_who_sends_slowly_gives_way_when_others_want_the_place(served):
    slow = [served.connect() for _ in range(3)]
    x = np.ones((1, 1000), np.float32)
    try:
        for sock in slow:
            sock.sendall(head_of(served, "few", 1000) + b"{")
        # Within the time that a body may take they stay; behind it one makes room.
        wait_until(lambda: served.infer("few", x).status == 200, "a place is made")
        assert read_reply(slow[0]).status == 408
        for sock in slow[1:]:
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(1)
    finally:
        for sock in slow:
            sock.close()


def test_answers_that_are_not_read_count_and_let_less_in(served):
    body, headers = infer_body(np.ones((1, 2_500_000), np.float32))
    text = request_bytes("POST", "/v2/models/wide/infer", body, **headers)
    with served.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        sock.sendall(text)
        wait_until(lambda: 0 < in_use(served) < 10_000_000, "the answer waits, the body does not")
        reply = read_reply(sock)
        assert reply.status == 200
        assert len(reply.body) > 10_000_000
    wait_until(lambda: in_use(served) == 0, "nothing is held")


def test_a_chunked_body_is_taken_and_given_back(served):
    content = json.dumps(
        {"inputs": [{"name": "x", "shape": [1, 1000], "datatype": "FP32", "data": [1.5] * 1000}]}
    ).encode()
    with served.connect() as sock:
        sock.sendall(
            b"POST /v2/models/few/infer HTTP/1.1\r\nHost: localhost\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
            + f"{len(content):x}\r\n".encode()
            + content
            + b"\r\n0\r\n\r\n"
        )
        assert read_reply(sock).json()["outputs"][0]["data"][:2] == [0.75, 0.75]
    wait_until(lambda: in_use(served) == 0, "the body is given back")


def test_bodies_in_chunks_are_bounded_by_the_queue_too(served):
    """Eight of them fill it; each more is refused, or takes the place of one that is too slow."""
    size = QUEUE_BYTES // 8
    head = b"POST /v2/models/slow/infer HTTP/1.1\r\nHost: localhost\r\n"
    unfinished = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size + bytes(size)
    socks = [served.connect() for _ in range(12)]
    try:
        for sock in socks:
            sock.sendall(unfinished)
            assert in_use(served) <= QUEUE_BYTES
        wait_until(lambda: len(answered(socks)) >= 4, "four have no room")
        assert in_use(served) <= QUEUE_BYTES
        for sock in answered(socks):
            reply = read_reply(sock)
            assert reply.status in (503, 408)
            if reply.status == 503:
                assert int(reply.headers["retry-after"]) >= 1
                assert f"more, at most {QUEUE_BYTES:,} may wait" in reply.json()["error"]
    finally:
        for sock in socks:
            sock.close()
    wait_until(lambda: in_use(served) == 0, "nothing is held")


def answered(socks):
    """Those on which something can be read."""
    return select.select(socks, [], [], 0)[0]
