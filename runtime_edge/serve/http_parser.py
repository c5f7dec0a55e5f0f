"""One HTTP/1.1 message from bytes: httptools (llhttp) under rules stricter than its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import httptools

from runtime_edge.serve.bodies import BodyPool
from runtime_edge.serve.errors import RequestError

MAX_HEADERS = 64
MAX_BODY_DIGITS = 15
TENSOR_HEADER = b"inference-header-content-length"
_ONCE = (b"host", b"authorization", b"content-type", TENSOR_HEADER)


@dataclass(slots=True)
class Head:
    """A request's head; requests that begin with the same bytes share it.

    Attributes:
        method, path, query: of the request line; the path is percent-decoded.
        headers: lower-case names; of those sent twice, the last.
        content_length: announced bytes of body, None when it comes in chunks.
        is_keep_alive: the client wants to go on with the connection.
        route: what the application found for method and path, None before.
    """

    method: str
    path: str
    query: str
    headers: Mapping[bytes, bytes]
    content_length: int | None
    is_keep_alive: bool
    route: Any = None


class MessageParser:
    """Head, and chunked body, of one request.

    Attributes:
        body_limit_bytes: of a chunked body.
        reserved_bytes: of the pool, for its chunks, by whoever reads them in.
    """

    def __init__(self, pool: BodyPool) -> None:
        """A parser that has seen nothing; what was reserved of the pool goes back there."""
        self.body_limit_bytes = 0
        self.reserved_bytes = 0
        self._pool = pool
        self._parser: Any = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._num_headers = 0
        self._is_head_complete = False
        self._is_keep_alive = False
        self._is_complete = False
        self._chunks = bytearray()

    def read_head(self, head: bytes) -> Head:
        """Parse a whole head.

        It goes in in two pieces: were the end of the head anywhere but at its last byte, this
        parser and the connection would take different bytes for the next request.

        Args:
            head: ends with an empty line.

        Raises:
            RequestError: 4xx or 505: why it is not taken.
        """
        self._guarded(lambda: self._parser.feed_data(head[:-1]), "not an HTTP request")
        if not self._is_head_complete:
            self._guarded(lambda: self._parser.feed_data(head[-1:]), "not an HTTP request")
            is_agreed = self._is_head_complete
        else:
            is_agreed = False
        if not is_agreed:
            raise RequestError(400, "not an HTTP request: line ends are not CR LF")
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise RequestError(505, f"HTTP/{version} is not spoken here")
        try:
            url = httptools.parse_url(self._url)
            path = unquote((url.path or b"/").decode("ascii"), errors="strict")
            query = (url.query or b"").decode("ascii")
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError) as error:
            raise RequestError(400, f"not a URL: {error}") from error
        return Head(
            self._parser.get_method().decode("ascii"),
            path,
            query,
            self._headers,
            self._read_framing(),
            version == "1.1" and self._is_keep_alive,
        )

    def read_chunks(self, data: memoryview) -> bool:
        """Take in more of a chunked body; true when it is complete.

        Raises:
            RequestError: 400: broken; 413: too large.
        """
        try:
            self._guarded(lambda: self._parser.feed_data(data), "the chunked body is broken")
        except RequestError:
            if not self._is_complete:  # what follows the message is nobody's concern
                raise
        return self._is_complete

    def give_back_surplus(self) -> int:
        """Give back what was reserved beyond the chunks; bytes."""
        surplus = self.reserved_bytes - len(self._chunks)
        self._pool.unreserve(surplus)
        self.reserved_bytes -= surplus
        return surplus

    def take_chunks(self) -> bytearray:
        """The body; its memory counts no more."""
        body = self._chunks
        self.release()
        return body

    def release(self) -> None:
        """Let the chunks go."""
        self._pool.unreserve(self.reserved_bytes)
        self.reserved_bytes = 0
        self._chunks = bytearray()

    # -- called by httptools

    def on_url(self, url: bytes) -> None:
        """Part of the URL."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header line."""
        self._num_headers += 1
        name = name.lower()
        if self._num_headers > MAX_HEADERS:
            raise RequestError(431, f"more than {MAX_HEADERS} header lines")
        if name in self._headers and name in _ONCE:
            raise RequestError(400, f"header {name.decode('latin-1')} is sent twice")
        self._headers[name] = value

    def on_headers_complete(self) -> None:
        """The head ends here."""
        self._is_head_complete = True
        # Asked later, llhttp has forgotten the head of a message without body.
        self._is_keep_alive = bool(self._parser.should_keep_alive())

    def on_body(self, body: bytes) -> None:
        """Part of a chunked body."""
        if len(self._chunks) + len(body) > self.body_limit_bytes:
            raise RequestError(413, f"the body has more than {self.body_limit_bytes:,} bytes")
        self._chunks += body

    def on_message_complete(self) -> None:
        """The message ends here."""
        self._is_complete = True

    def _guarded(self, feed: Callable[[], None], what: str) -> None:
        try:
            feed()
        except httptools.HttpParserUpgrade:
            raise RequestError(400, "this server does not change protocols") from None
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, RequestError):
                raise error.__context__ from None
            raise
        except httptools.HttpParserError as error:
            raise RequestError(400, f"{what}: {error}") from error

    def _read_framing(self) -> int | None:
        """Bytes of body that are announced, None for chunks."""
        coding = self._headers.get(b"transfer-encoding")
        length = self._headers.get(b"content-length")
        if self._headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise RequestError(415, "compressed requests are not taken; send them as they are")
        if coding is not None:
            if length is not None or coding.strip().lower() != b"chunked":
                raise RequestError(400, "Transfer-Encoding must be chunked, alone")
            return None
        if length is None:
            return 0
        if not length.isdigit() or len(length) > MAX_BODY_DIGITS:
            raise RequestError(400, "Content-Length is no reasonable number")
        return int(length)
