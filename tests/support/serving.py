"""A daemon in a process of its own, as a user starts it, and raw connections to it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 30.0


def search_path() -> str:
    """PYTHONPATH of a child: this tree before whatever is there."""
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))


class Served:
    """A running daemon.

    Attributes:
        process: its process; host, port: of HTTP; info: what it printed when it was ready.
        log_path: file with what it logs.
    """

    def __init__(self, process: subprocess.Popen[str], info: dict[str, Any], log_path: Path):
        self.process = process
        self.info = info
        self.log_path = log_path
        self.url = info.get("http", "")
        self.host, _, port = self.url.rpartition(":")
        self.port = int(port or 0)

    def connect(self) -> socket.socket:
        sock = socket.create_connection((self.host, self.port), timeout=TIMEOUT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        """One request on a connection of its own."""
        with self.connect() as sock:
            sock.sendall(request_bytes(method, path, body, **headers))
            return read_reply(sock)

    def get(self, path: str) -> Any:
        """JSON of a GET that must succeed."""
        reply = self.request("GET", path)
        assert reply.status == 200, reply
        return reply.json()

    def infer(self, model: str, x: np.ndarray, **parameters: Any) -> Reply:
        """One input `x`, binary both ways."""
        body, headers = infer_body(x, **parameters)
        return self.request("POST", f"/v2/models/{model}/infer", body, **headers)

    def log(self) -> str:
        return self.log_path.read_text()

    def resident_bytes(self) -> int:
        # status adds up per core only now and then; this counts pages
        for line in Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no Rss")


class Reply:
    """A response."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes):
        self.status = status
        self.headers = headers
        self.body = body

    def __repr__(self) -> str:
        return f"{self.status} {self.headers} {self.body[:300]!r}"

    def json(self) -> Any:
        size = int(self.headers.get("inference-header-content-length", len(self.body)))
        return json.loads(self.body[:size])

    def output(self, dtype: Any = np.float32) -> np.ndarray:
        """The only binary output."""
        entry = self.json()["outputs"][0]
        raw = self.body[int(self.headers["inference-header-content-length"]) :]
        return np.frombuffer(raw, dtype).reshape(entry["shape"])


def infer_body(x: np.ndarray, name: str = "x", **parameters: Any) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request with one FP32 input and a binary output."""
    raw = x.tobytes()
    content = {
        "parameters": {"binary_data_output": True, **parameters},
        "inputs": [
            {
                "name": name,
                "shape": list(x.shape),
                "datatype": "FP32",
                "parameters": {"binary_data_size": len(raw)},
            }
        ],
    }
    text = json.dumps(content).encode()
    return text + raw, {"Inference-Header-Content-Length": str(len(text))}


def request_bytes(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def read_reply(sock: socket.socket) -> Reply:
    """One response; raises ConnectionError when the connection ends before it is whole."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _received(sock, data)
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    length = int(headers.get("content-length", "0"))
    while len(body) < length:
        body += _received(sock, body)
    return Reply(int(first.split()[1]), headers, body)


def _received(sock: socket.socket, so_far: bytes) -> bytes:
    part = sock.recv(1 << 20)
    if not part:
        raise ConnectionError(f"the connection ended after {so_far[:200]!r}")
    return part


@contextlib.contextmanager
def serving(
    folder: Path,
    *arguments: object,
    plans: dict[str, Path] | None = None,
    toml: str = "",
    environment: dict[str, str] | None = None,
    expect_ready: bool = True,
) -> Iterator[Served]:
    """Run `edgeplan serve` on a port that the system chooses; stop it at the end.

    Args:
        folder: for its files.
        arguments: more of the command line.
        plans: name to path.
        toml: content of serve.toml.
        environment: more variables.
        expect_ready: wait until it serves.
    """
    command = [sys.executable, "-m", "runtime_edge.cli", "serve", "--json", "-v"]
    command += ["--http", "127.0.0.1:0", *map(str, arguments)]
    for name, path in (plans or {}).items():
        command += ["--plan", f"{name}={path}"]
    if toml:
        (folder / "serve.toml").write_text(toml)
        command += ["--config", str(folder / "serve.toml")]
    log_path = folder / "serve.log"
    with open(log_path, "w") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "PYTHONPATH": search_path(), **(environment or {})},
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline() if expect_ready else "{}"
        assert line, log_path.read_text()
        yield Served(process, json.loads(line), log_path)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
        assert process.stdout is not None
        process.stdout.close()


def wait_until(condition: Any, what: str, timeout_s: float = TIMEOUT_S) -> Any:
    """Poll a condition; returns its first true value."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {timeout_s} s: {what}")
