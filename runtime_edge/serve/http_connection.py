"""One HTTP/1.1 connection: bytes in, checked requests to the application, responses out.

httptools (llhttp) parses heads and chunked bodies. Bodies with a Content-Length do not pass through
the parser: the socket is read straight into the memory from which the plan reads them.
"""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING, Any

from runtime_edge.serve.errors import OverloadError, Refusal, RequestError
from runtime_edge.serve.http_messages import Request, Response, error_response, response_head
from runtime_edge.serve.http_parser import MAX_BODY_DIGITS, TENSOR_HEADER, MessageParser

if TYPE_CHECKING:
    from runtime_edge.serve.http_server import HttpServer

MAX_HEAD_BYTES = 16 << 10
_END_OF_HEAD = b"\r\n\r\n"
_DISCARD_BYTES = 256 << 10
_LINGER_S = 2.0
_LARGE_PART_BYTES = 64 << 10  # joining costs more than another write from here on

# What the connection is waiting for.
_HEAD, _BODY, _CHUNKED, _DISCARD, _ANSWER, _CLOSED = range(6)


class HttpConnection(asyncio.BufferedProtocol):
    """See the module.

    Attributes:
        expires_s: monotonic time at which the connection is closed; None is never.
        is_idle: nothing of a request has arrived since the last answer.
    """

    def __init__(self, server: HttpServer, *, is_unix: bool = False) -> None:
        """A connection that belongs to a server."""
        self._server = server
        self._is_unix = is_unix
        self._transport: Any = None
        self._buffer = bytearray(MAX_HEAD_BYTES)
        self._buffer_view = memoryview(self._buffer)
        self._used = 0
        self._state = _HEAD
        self._request: Request | None = None
        self._refused: Response | None = None
        self._remaining = 0
        self._received = 0
        self._message: MessageParser | None = None
        self._is_keep_alive = True
        self._is_writing = False
        self._unsent_bytes = 0
        self._is_reading_paused = False
        self.expires_s: float | None = None

    @property
    def is_idle(self) -> bool:
        """Between requests."""
        return self._state == _HEAD and self._used == 0 and not self._is_writing

    def connection_made(self, transport: Any) -> None:
        """Take the connection, or turn it away when there are too many."""
        self._transport = transport
        transport.set_write_buffer_limits(high=0)
        sock = transport.get_extra_info("socket")
        if sock is not None and not self._is_unix:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.expires_s = time.monotonic() + self._server.limits.head_timeout_s
        if not self._server.add(self):
            self._state = _CLOSED
            self._write(_busy(self._server.max_connections), is_keep_alive=False)
            self._server.loop.call_later(_LINGER_S, transport.abort)  # nobody else counts it

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection and cancel what it asked for."""
        del exc
        self._state = _CLOSED
        self._server.remove(self)
        self._forget_unsent()
        self._drop_message()
        request, self._request = self._request, None
        if request is not None:
            cancel, request.on_cancel = request.on_cancel, None
            if cancel is not None:
                cancel()
            request.release()

    def eof_received(self) -> bool:
        """A client that sends no more is gone: nothing is computed for it."""
        return False

    def pause_writing(self) -> None:
        """The client reads slowly: it gets a time limit."""
        self._is_writing = True
        self.expires_s = time.monotonic() + self._server.limits.write_timeout_s

    def resume_writing(self) -> None:
        """The answer is out: go on with the next request."""
        self._is_writing = False
        self._forget_unsent()
        if self._state == _HEAD:
            self._await_head()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        del sizehint
        if self._state == _BODY:
            assert self._request is not None
            assert self._request.body is not None
            return self._request.body.view[self._received :]
        if self._state == _DISCARD:
            return self._server.discarded[: min(self._remaining, _DISCARD_BYTES)]
        if self._state == _CLOSED:
            return self._server.discarded
        return self._buffer_view[self._used :]

    def buffer_updated(self, nbytes: int) -> None:
        """Some bytes have arrived."""
        if self._state == _BODY:
            self._received += nbytes
            if self._received == self._remaining:
                self._dispatch()
        elif self._state == _DISCARD:
            self._remaining -= nbytes
            if self._remaining == 0:
                self._answer_refused()
        elif self._state == _CLOSED:
            return
        elif self._state == _CHUNKED:
            self._read_chunks(nbytes)
        else:
            self._used += nbytes
            if self._state == _HEAD and not self._is_writing:
                if self._used == nbytes:
                    self.expires_s = time.monotonic() + self._server.limits.head_timeout_s
                self._read_head()
            elif self._used == MAX_HEAD_BYTES:  # the next request is early: leave it outside
                self._is_reading_paused = True
                self._transport.pause_reading()

    def respond(self, request: Request, response: Response) -> None:
        """Send the answer of the request that is being worked on."""
        if self._request is not request:
            return  # the client has gone
        self._request = None
        is_keep_alive = self._is_keep_alive and not response.is_last and self._server.is_open
        self._write(response, is_keep_alive=is_keep_alive, is_head=request.method == "HEAD")
        if is_keep_alive and self._state != _CLOSED:
            self._state = _HEAD
            if not self._is_writing:
                self._await_head()

    def is_waiting_for(self, request: Request) -> bool:
        """Whether the client is still there for the answer of a request."""
        return self._request is request

    def close(self) -> None:
        """Close now, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()

    def close_if_idle(self) -> None:
        """Close unless a request is under way."""
        if self.is_idle and self._transport is not None:
            self._transport.close()

    def expire(self) -> None:
        """The time is up: say so where a request was begun, and close."""
        if self._state in (_BODY, _CHUNKED, _DISCARD) or (self._state == _HEAD and self._used):
            self._refuse(RequestError(408, "the request did not arrive in time"))
        else:
            self.close()

    def _await_head(self) -> None:
        """Wait for the next request, part of which may be here."""
        limits = self._server.limits
        now = time.monotonic()
        self.expires_s = now + (limits.head_timeout_s if self._used else limits.idle_timeout_s)
        if self._is_reading_paused:
            self._is_reading_paused = False
            self._transport.resume_reading()
        if self._used:
            # Not from here: a client that pipelines would otherwise deepen the stack.
            self._server.loop.call_soon(self._read_head)

    def _read_head(self) -> None:
        if self._state != _HEAD or self._used == 0:
            return
        while self._buffer.startswith(b"\r\n") and self._used >= 2:
            self._drop(2)  # empty lines before a request are allowed
        end = self._buffer.find(_END_OF_HEAD, 0, self._used)
        if end < 0:
            if self._used == MAX_HEAD_BYTES:
                text = f"the request's head has more than {MAX_HEAD_BYTES:,} bytes"
                self._refuse(RequestError(431, text))
            return
        try:
            request = self._parse(end + len(_END_OF_HEAD))
            self._drop(end + len(_END_OF_HEAD))
            self._begin(request)
        except RequestError as error:
            self._refuse(error)

    def _parse(self, num_bytes: int) -> Request:
        text = bytes(self._buffer_view[:num_bytes])
        head = self._server.heads.get(text)
        if head is None:
            message = MessageParser(self._server.bodies)
            head = message.read_head(text)
            if head.content_length is None:
                self._message = message  # it takes the chunks
            else:
                self._server.heads.note(text, head)
        request = Request(self, head)
        request.is_trusted_peer = self._is_unix
        self._is_keep_alive = head.is_keep_alive
        return request

    def _begin(self, request: Request) -> None:
        """The head is sound: ask the application, then wait for the body."""
        self._request = request
        refused = self._server.application.begin(request)
        length = request.content_length
        self.expires_s = time.monotonic() + self._server.limits.body_timeout_s
        if refused is None and length is not None and length > request.body_limit_bytes:
            text = f"the body has {length:,} bytes, allowed here are {request.body_limit_bytes:,}"
            refused = error_response(RequestError(413, text))
            refused.is_last = True
        if refused is None and length:
            refused = self._take_body(request, length)
        is_waiting = request.headers.get(b"expect", b"").lower() == b"100-continue"
        if refused is not None:
            request.release()  # draining a body takes neither memory nor a place in a queue
            self._refused = refused
            if is_waiting or length is None or length > self._server.max_discard_bytes:
                # The client has not sent the body yet, or it is not worth reading.
                refused.is_last = bool(length) or length is None or refused.is_last
                self._answer_refused()
            else:
                self._remaining = length
                self._begin_discard()
            return
        if request.place is not None:
            request.place.wait()
        if is_waiting and length != 0:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if length is None:
            self._begin_chunks(request)
        elif length == 0:
            self._dispatch()
        else:
            self._begin_body(request, length)

    def _take_body(self, request: Request, length: int) -> Response | None:
        """Memory for the body, or the answer that there is none."""
        text = request.headers.get(TENSOR_HEADER, b"")
        lead = int(text) if text.isdigit() and len(text) <= MAX_BODY_DIGITS else 0
        pool = self._server.bodies
        while True:
            request.body = pool.take(length, lead if lead <= length else 0)
            if request.body is not None:
                return None
            if not self._server.application.make_room(request):
                return error_response(pool.refusal(length))

    def _begin_body(self, request: Request, length: int) -> None:
        assert request.body is not None
        early = min(self._used, length)
        request.body.view[:early] = self._buffer_view[:early]
        self._drop(early)
        self._received, self._remaining = early, length
        self._state = _BODY
        if early == length:
            self._dispatch()

    def _begin_discard(self) -> None:
        early = min(self._used, self._remaining)
        self._drop(early)
        self._remaining -= early
        self._state = _DISCARD
        if self._remaining == 0:
            self._answer_refused()

    def _begin_chunks(self, request: Request) -> None:
        # The parser cannot tell where the message ended, so nothing may follow it here.
        self._is_keep_alive = False
        assert self._message is not None
        self._message.body_limit_bytes = request.body_limit_bytes
        self._state = _CHUNKED
        early, self._used = self._used, 0
        if early:
            self._read_chunks(early)

    def _admit_chunks(self, request: Request, message: MessageParser, nbytes: int) -> None:
        """Count what was read against the queue and the memory of bodies, or refuse it."""
        application, pool = self._server.application, self._server.bodies
        application.take_more(request, nbytes)
        while not pool.reserve(nbytes):
            if not application.make_room(request):
                raise pool.refusal(nbytes)
        message.reserved_bytes += nbytes

    def _read_chunks(self, nbytes: int) -> None:
        request, message = self._request, self._message
        assert request is not None
        assert message is not None
        try:
            # Once for all chunks in it: a client may send thousands of a single byte each.
            self._admit_chunks(request, message, nbytes)
            is_whole = message.read_chunks(self._buffer_view[:nbytes])
        except RequestError as error:
            self._refuse(error)
            return
        surplus = message.give_back_surplus()  # sizes and line ends
        if request.place is not None:
            request.place.grow(-surplus)
        if not is_whole:
            return
        if request.place is not None:
            request.place.keep()
        chunks = message.take_chunks()
        if chunks:
            refused = self._take_body(request, len(chunks))
            if refused is not None:
                request.respond(refused)
                return
            assert request.body is not None
            request.body.view[:] = chunks
            request.content_length = len(chunks)
        self._dispatch()

    def _drop_message(self) -> None:
        message, self._message = self._message, None
        if message is not None:
            message.release()

    def _dispatch(self) -> None:
        """The request is complete: have it answered."""
        request = self._request
        assert request is not None
        self._state = _ANSWER
        self.expires_s = None
        request.received_ns = time.monotonic_ns()
        if request.place is not None:
            request.place.keep()
        try:
            response = self._server.application.handle(request)
        except RequestError as error:
            response = error_response(error)
        if response is not None:
            request.respond(response)

    def _answer_refused(self) -> None:
        request, refused = self._request, self._refused
        assert request is not None
        assert refused is not None
        self._refused = None
        self._state = _ANSWER
        request.respond(refused)

    def _refuse(self, error: RequestError) -> None:
        """Answer what cannot be understood, and close: where the next request begins is unknown."""
        request, self._request = self._request, None
        if request is not None:
            request.release()
        self._drop_message()
        self._write(error_response(error), is_keep_alive=False)

    def _write(self, response: Response, *, is_keep_alive: bool, is_head: bool = False) -> None:
        head = response_head(response, self._server.date(), is_keep_alive=is_keep_alive)
        self._send([head] if is_head else [head, *response.parts])
        if not is_keep_alive:
            self._state = _CLOSED
            self._used = 0
            limits = self._server.limits
            if self._transport.can_write_eof():
                # Closing with unread bytes resets the connection, and the answer would be lost.
                self._transport.write_eof()
                linger_s = limits.write_timeout_s if self._is_writing else _LINGER_S
                self.expires_s = time.monotonic() + linger_s
            else:
                self._transport.close()
                self.expires_s = time.monotonic() + limits.write_timeout_s

    def _send(self, parts: list[bytes | memoryview]) -> None:
        """Small parts in one piece, large ones as they are; what the client leaves is counted."""
        small: list[bytes | memoryview] = []
        for part in parts:
            if len(part) < _LARGE_PART_BYTES:
                small.append(part)
                continue
            if small:
                self._transport.write(b"".join(small))
                small = []
            self._transport.write(memoryview(part))
        if small:
            self._transport.write(b"".join(small))
        self._forget_unsent()  # of an answer that this one follows unread: it is part of the sum
        unsent = self._transport.get_write_buffer_size()
        if unsent >= _LARGE_PART_BYTES:  # while clients leave their answers, less is let in
            self._unsent_bytes = unsent
            self._server.bodies.hold(unsent)

    def _forget_unsent(self) -> None:
        unsent, self._unsent_bytes = self._unsent_bytes, 0
        if unsent:
            self._server.bodies.unreserve(unsent)

    def _drop(self, nbytes: int) -> None:
        """Remove bytes from the front of the buffer."""
        rest = self._used - nbytes
        if rest:
            self._buffer_view[:rest] = bytes(self._buffer_view[nbytes : self._used])
        self._used = rest


def _busy(max_connections: int) -> Response:
    return error_response(
        OverloadError(
            Refusal.QUEUE_REQUESTS, f"{max_connections:,} connections are open; try again later"
        )
    )
