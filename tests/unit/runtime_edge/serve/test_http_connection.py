"""Connections whose requests hold places and memory, with an application that answers lengths."""

from __future__ import annotations

import asyncio
import socket

import pytest

from runtime_edge.serve import places
from runtime_edge.serve.bodies import BodyPool
from runtime_edge.serve.config import ServeConfig
from runtime_edge.serve.http_messages import Response
from runtime_edge.serve.http_server import HttpServer
from runtime_edge.serve.places import Places
from runtime_edge.serve.scheduler import PlanQueue

LARGE_BYTES = 32 << 20  # more than sockets take in


class Lengths:
    """Answers each body with its length, none with many bytes."""

    def __init__(self):
        self.places = Places()
        self.queue = PlanQueue("p", 10, 1 << 20, 1e6)

    def begin(self, request):
        request.body_limit_bytes = 1 << 20
        length = request.content_length or 0
        request.place = self.places.take(self.queue, length, request.connection.expire)

    def handle(self, request):
        if request.body is None:
            return Response(200, (bytes(LARGE_BYTES),))
        return Response(200, (str(len(request.body.view)).encode(),))

    def take_more(self, request, nbytes):
        request.place.grow(nbytes)

    def make_room(self, spare):
        return self.places.make_room(spare=spare.place)


def run(scenario, limit_bytes=100_000, **options):
    async def main():
        application, pool = Lengths(), BodyPool(limit_bytes)
        server = HttpServer(application, ServeConfig(http="127.0.0.1:0", **options), pool)
        address = await server.listen_tcp("127.0.0.1:0", "http")
        try:
            await asyncio.wait_for(scenario(application, pool, address), 30)
        finally:
            server.close()
            await asyncio.sleep(0)

    asyncio.run(main())


async def ask(address, text):
    reader, writer = await asyncio.open_connection(*address)
    writer.write(text)
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status


HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Whatever is coming has been coming for too long."""
    monkeypatch.setattr(places, "GRACE_NS", -1)


def test_a_body_that_is_slow_gives_its_memory_to_one_that_wants_it():
    async def scenario(application, pool, address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(HEAD + b"Content-Length: 90000\r\n\r\nfirst bytes")
        while not pool.used_bytes:
            await asyncio.sleep(0.01)
        body = bytes(80_000)
        assert await ask(address, HEAD + b"Content-Length: 80000\r\n\r\n" + body) == 200
        assert (await reader.readline()).split()[1] == b"408"
        writer.close()
        assert (pool.used_bytes, application.queue.num_coming) == (0, 0)

    run(scenario)


def test_a_chunked_body_that_is_here_does_not_give_way_to_itself():
    async def scenario(application, pool, address):
        held = pool.take(pool.limit_bytes - 40_000)
        assert pool.reserve(pool.limit_bytes - pool.used_bytes - 100)  # for the chunks, no block
        assert await ask(address, CHUNKED) == 503
        held.release()
        assert await ask(address, CHUNKED) == 200
        assert application.queue.num_coming == 0

    run(scenario)


def chunk(nbytes):
    return b"%x\r\n" % nbytes + bytes(nbytes) + b"\r\n"


def test_a_body_in_chunks_is_given_the_room_of_a_slow_one():
    async def scenario(application, pool, address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(HEAD + b"Content-Length: 90000\r\n\r\nfirst bytes")
        while not pool.used_bytes:
            await asyncio.sleep(0.01)
        text = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(30_000) + b"0\r\n\r\n"
        assert await ask(address, text) == 200
        assert (await reader.readline()).split()[1] == b"408"
        writer.close()
        assert (pool.used_bytes, application.queue.num_coming) == (0, 0)
        assert application.queue.coming_bytes == 0

    run(scenario)


def test_a_body_in_chunks_that_is_slow_counts_and_gives_way():
    async def scenario(application, pool, address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(60_000))
        while pool.used_bytes < 60_000:
            await asyncio.sleep(0.01)
        assert (application.queue.num_coming, application.queue.coming_bytes) == (1, 60_000)
        body = bytes(50_000)
        assert await ask(address, HEAD + b"Content-Length: 50000\r\n\r\n" + body) == 200
        assert (await reader.readline()).split()[1] == b"408"
        writer.close()
        assert (pool.used_bytes, application.queue.coming_bytes) == (0, 0)

    run(scenario)


def test_refused_bodies_are_drained_without_memory_or_place():
    async def scenario(application, pool, address):
        held = pool.take(pool.limit_bytes)
        before = pool.used_bytes
        reader, writer = await asyncio.open_connection(*address)
        writer.write(HEAD + b"Content-Length: 50000\r\n\r\n" + bytes(20_000))
        while not pool.num_refused:
            await asyncio.sleep(0.01)
        assert (pool.used_bytes, application.queue.num_coming) == (before, 0)
        writer.write(bytes(30_000))
        assert await answer(reader) == 503
        held.release()
        writer.write(HEAD + b"Content-Length: 50000\r\n\r\n" + bytes(50_000))
        assert await answer(reader) == 200  # on the same connection
        writer.close()

    run(scenario)


def test_an_unread_answer_is_counted_once_also_when_the_next_request_is_late():
    async def scenario(application, pool, address):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)  # whatever the system's are
        sock.connect(address)
        _, writer = await asyncio.open_connection(sock=sock, limit=1000)
        writer.write(HEAD + b"Content-Length: 0\r\n\r\nPOST")  # and a next one that never ends
        while not pool.used_bytes:
            await asyncio.sleep(0.01)
        while pool.used_bytes:  # write_timeout_s: told so, then cut off
            assert pool.used_bytes < LARGE_BYTES
            await asyncio.sleep(0.01)
        writer.close()

    run(scenario, write_timeout_s=0.2)


async def answer(reader):
    """Status of a whole response."""
    head = await reader.readuntil(b"\r\n\r\n")
    (length,) = (int(x[15:]) for x in head.lower().split(b"\r\n") if x[:15] == b"content-length:")
    await reader.readexactly(length)
    return int(head.split()[1])


def test_a_head_that_comes_again_is_read_like_the_first_time():
    async def scenario(application, pool, address):
        del application, pool
        reader, writer = await asyncio.open_connection(*address)
        for body in (b"first", b"other", b"third"):
            for head in (HEAD + b"Content-Length: 5\r\n", HEAD + b"content-length:5\r\nX: y\r\n"):
                writer.write(head + b"\r\n" + body)
                assert await answer(reader) == 200
        writer.close()
        closing = HEAD + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello"
        for text, status in (
            (closing, 200),
            (HEAD + b"Host: localhost\r\nContent-Length: 5\r\n\r\nhello", 400),
            (CHUNKED, 200),
        ):
            assert [await ask(address, text) for _ in range(3)] == [status] * 3
        for _ in range(2):  # the connection ends behind the answer, each time
            reader, writer = await asyncio.open_connection(*address)
            writer.write(closing)
            assert (await reader.read()).endswith(b"\r\n\r\n5")
            writer.close()

    run(scenario)


@pytest.mark.parametrize(
    ("version", "connection", "is_kept"),
    [("1.1", "", True), ("1.1", "close", False), ("1.0", "", False), ("1.0", "keep-alive", False)],
)
@pytest.mark.parametrize("length", [0, 5])
def test_the_connection_stays_as_the_client_asks(version, connection, is_kept, length):
    lines = [f"POST / HTTP/{version}", "Host: localhost", f"Content-Length: {length}"]
    text = "\r\n".join([*lines, *([f"Connection: {connection}"] if connection else []), "", ""])
    request = text.encode() + b"hello"[:length]

    async def scenario(application, pool, address):
        application.handle = lambda request: Response(200, (b"fine",))
        reader, writer = await asyncio.open_connection(*address)
        writer.write(request)
        assert await answer(reader) == 200
        if is_kept:
            writer.write(request)
            assert await answer(reader) == 200
        else:
            assert await reader.read() == b""
        writer.close()

    run(scenario)


def test_many_small_chunks_are_counted_by_their_bytes():
    async def scenario(application, pool, address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 20_000)
        while pool.used_bytes != 20_000:  # not the 120,000 that were sent
            await asyncio.sleep(0.01)
        assert (application.queue.num_coming, application.queue.coming_bytes) == (1, 20_000)
        writer.write(b"0\r\n\r\n")
        assert (await reader.read()).endswith(b"\r\n\r\n20000")
        writer.close()
        assert (pool.used_bytes, application.queue.coming_bytes) == (0, 0)

    run(scenario)
