"""HTTP requests and responses as the routes see them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from runtime_edge.serve.errors import OverloadError, RequestError

if TYPE_CHECKING:
    from runtime_edge.serve.bodies import Body
    from runtime_edge.serve.http_connection import HttpConnection
    from runtime_edge.serve.http_parser import Head
    from runtime_edge.serve.places import Place

JSON_TYPE = "application/json"
REASONS = {status.value: status.phrase for status in HTTPStatus}


class Request:
    """One request.

    Attributes:
        head: as parsed, shared with other requests; method, path, query, headers: of it.
        content_length: bytes of body announced, None for chunked until they are here.
        body: its memory, None when there is none; the handler may take it over (set to None).
        place: in the queue of the plan that it is for, until it is queued.
        begun_ns, received_ns: monotonic time when the head and the whole request had arrived.
        body_limit_bytes: set by `Application.begin`.
        on_cancel: called when the client goes before it was answered.
        is_trusted_peer: came through the Unix socket.
    """

    __slots__ = (
        "begun_ns",
        "body",
        "body_limit_bytes",
        "connection",
        "content_length",
        "head",
        "headers",
        "is_trusted_peer",
        "method",
        "on_cancel",
        "path",
        "place",
        "query",
        "received_ns",
    )

    def __init__(
        self,
        connection: HttpConnection,
        head: Head,
    ) -> None:
        """A request whose body is still to come."""
        self.connection = connection
        self.head = head
        self.method = head.method
        self.path = head.path
        self.query = head.query
        self.headers = head.headers
        self.content_length = head.content_length
        self.body: Body | None = None
        self.place: Place | None = None
        self.body_limit_bytes = 0
        self.on_cancel: Callable[[], None] | None = None
        self.is_trusted_peer = False
        self.begun_ns = time.monotonic_ns()
        self.received_ns = self.begun_ns

    def respond(self, response: Response) -> None:
        """Answer; does nothing when the client has gone. On the event loop's thread."""
        self.on_cancel = None
        self.release()
        self.connection.respond(self, response)

    def release(self) -> None:
        """Give back the body's memory and the place in the queue, if they are still held."""
        body, self.body = self.body, None
        if body is not None:
            body.release()
        place, self.place = self.place, None
        if place is not None:
            place.give_back()


class Response:
    """One response.

    Attributes:
        status: HTTP status; parts: body in pieces; headers: more lines (name, value).
    """

    __slots__ = ("content_type", "headers", "is_last", "parts", "status")

    def __init__(
        self,
        status: int = 200,
        parts: Sequence[bytes | memoryview] = (),
        *,
        content_type: str = "",
        headers: Sequence[tuple[str, str]] = (),
        is_last: bool = False,
    ) -> None:
        """A response; is_last closes the connection behind it."""
        self.status = status
        self.parts = parts
        self.content_type = content_type
        self.headers = headers
        self.is_last = is_last


class Application(Protocol):
    """What answers requests. All methods run on the event loop's thread and must be quick."""

    def begin(self, request: Request) -> Response | None:
        """Look at the head; set `body_limit_bytes`, or refuse before the body is taken in."""
        ...

    def handle(self, request: Request) -> Response | None:
        """Answer a whole request, now or later through `Request.respond` (then None)."""
        ...

    def take_more(self, request: Request, nbytes: int) -> None:
        """More of a body in chunks is here; raises `RequestError` where it may not come in."""
        ...

    def make_room(self, spare: Request) -> bool:
        """Give up on another's body that has been coming for too long; false if there is none."""
        ...


def response_head(response: Response, date: str, *, is_keep_alive: bool) -> bytes:
    """Status line and headers, with the empty line behind them."""
    lines = [
        f"HTTP/1.1 {response.status} {REASONS.get(response.status, 'Status')}",
        f"Date: {date}",
        f"Content-Length: {sum(map(len, response.parts))}",
    ]
    if response.content_type:
        lines.append(f"Content-Type: {response.content_type}")
    lines += [f"{name}: {value}" for name, value in response.headers]
    if not is_keep_alive:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def json_response(
    content: Any, status: int = 200, headers: Sequence[tuple[str, str]] = ()
) -> Response:
    """A JSON body."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    return Response(status, (text,), content_type=JSON_TYPE, headers=headers)


def error_response(error: RequestError) -> Response:
    """The protocol's error object, with Retry-After where it may help."""
    headers: list[tuple[str, str]] = []
    if isinstance(error, OverloadError):
        headers.append(("Retry-After", str(error.retry_after_s)))
    if error.status == 401:
        headers.append(("WWW-Authenticate", "Bearer"))
    return json_response({"error": str(error)}, error.status, headers)
