"""A small client of the protocol, on the standard library alone: for `edgeplan client`."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from runtime_edge.serve.errors import ServeError

__all__ = ["Client", "ClientError", "TensorValue"]

_TENSOR_HEADER = "Inference-Header-Content-Length"


class ClientError(ServeError):
    """The daemon refused, or cannot be reached.

    Attributes:
        status: HTTP status, 0 without an answer.
        retry_after_s: what the daemon advises, None without advice.
    """

    def __init__(self, text: str, status: int = 0, retry_after_s: int | None = None) -> None:
        """An error with what the daemon said."""
        super().__init__(text)
        self.status = status
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class TensorValue:
    """A tensor on its way: protocol's datatype, shape, little-endian elements."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """One connection to a daemon."""

    def __init__(self, url: str, *, token: str = "", ca_file: str = "", timeout_s: float = 60.0):
        """Prepare a connection; it is opened by the first call.

        Args:
            url: `http://HOST:PORT`, `https://HOST:PORT`, `HOST:PORT` or `unix:PATH`.
            token: bearer token.
            ca_file: PEM file that the daemon's certificate is checked with; empty is the system's.
            timeout_s: of each step.

        Raises:
            ClientError: not such a URL.
        """
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._url = url
        self._connection: http.client.HTTPConnection
        if url.startswith("unix:"):
            self._connection = _UnixConnection(url[len("unix:") :], timeout_s)
            return
        parts = urlsplit(url if "://" in url else "http://" + url)
        try:
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ClientError(f"url '{url}': {error}") from error
        if not host or parts.scheme not in ("http", "https"):
            raise ClientError(f"url '{url}': expected http://HOST:PORT, HOST:PORT or unix:PATH")
        if parts.scheme == "https":
            import ssl

            context = ssl.create_default_context(cafile=ca_file or None)
            self._connection = http.client.HTTPSConnection(
                host, port, timeout=timeout_s, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(host, port or 8000, timeout=timeout_s)

    def get(self, path: str) -> Any:
        """JSON of a GET.

        Args:
            path: behind the daemon's address, `/v2` for instance.

        Raises:
            ClientError: any other status than 200.
        """
        _, body = self._call("GET", path)
        return self._parsed(body)

    def text(self, path: str) -> str:
        """Text of a GET.

        Args:
            path: behind the daemon's address, `/metrics` for instance.

        Raises:
            ClientError: any other status than 200.
        """
        return self._call("GET", path)[1].decode("utf-8")

    def post(self, path: str, content: Any = None) -> Any:
        """JSON of a POST, None when the answer is empty.

        Args:
            path: behind the daemon's address.
            content: JSON object to send; None: an empty one.

        Raises:
            ClientError: any other status than 200.
        """
        _, body = self._call("POST", path, json.dumps(content or {}).encode())
        return self._parsed(body) if body else None

    def infer(
        self,
        model: str,
        inputs: Sequence[TensorValue],
        *,
        priority: int = 0,
        timeout_us: int = 0,
    ) -> list[TensorValue]:
        """One inference, binary both ways.

        Args:
            model: name.
            inputs: all inputs.
            priority: 1 is the most urgent, 0 the plan's default.
            timeout_us: until the answer must be there, 0 is the plan's default.

        Raises:
            ClientError: the daemon refused.
        """
        parameters: dict[str, Any] = {"binary_data_output": True}
        if priority:
            parameters["priority"] = priority
        if timeout_us:
            parameters["timeout"] = timeout_us
        content = {
            "parameters": parameters,
            "inputs": [
                {
                    "name": tensor.name,
                    "datatype": tensor.datatype,
                    "shape": list(tensor.shape),
                    "parameters": {"binary_data_size": len(tensor.data)},
                }
                for tensor in inputs
            ],
        }
        text = json.dumps(content).encode()
        headers, body = self._call(
            "POST",
            f"/v2/models/{quote(model, safe='')}/infer",
            b"".join((text, *(tensor.data for tensor in inputs))),
            {_TENSOR_HEADER: str(len(text))},
        )
        try:
            return _outputs(body, int(headers.get(_TENSOR_HEADER, len(body))))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ClientError(
                f"{self._url}: the answer is none of the Open Inference Protocol with binary "
                f"outputs: {error!r:.200}"
            ) from error

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _parsed(self, body: bytes) -> Any:
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ClientError(f"{self._url}: the answer is not JSON: {error!r:.200}") from error

    def _call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[http.client.HTTPMessage, bytes]:
        try:
            self._connection.request(method, path, body, {**self._headers, **(headers or {})})
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise ClientError(
                f"{self._url}: {error}; is `edgeplan serve` running there?"
            ) from error
        if response.status == 200:
            return response.headers, content
        try:
            text = str(json.loads(content)["error"])
        except (ValueError, KeyError, TypeError):
            text = content[:200].decode("utf-8", "replace")
        retry = response.headers.get("Retry-After", "")
        raise ClientError(
            f"{self._url}: {response.status}: {text}",
            response.status,
            int(retry) if retry.isdigit() else None,
        )


def _outputs(body: bytes, at: int) -> list[TensorValue]:
    """Outputs of an answer whose JSON ends at a byte; KeyError, TypeError, ValueError if wrong."""
    outputs = []
    for entry in json.loads(body[:at])["outputs"]:
        size = entry["parameters"]["binary_data_size"]
        if type(size) is not int or not 0 <= size <= len(body) - at:
            raise ValueError(f"binary_data_size is {size}, {len(body) - at:,} bytes are left")
        shape = tuple(int(extent) for extent in entry["shape"])
        data, at = body[at : at + size], at + size
        outputs.append(TensorValue(str(entry["name"]), str(entry["datatype"]), shape, data))
    return outputs
