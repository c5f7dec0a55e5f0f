"""The client against servers that answer something else than the protocol."""

from __future__ import annotations

import json
import socket
import threading

import pytest

from runtime_edge.cli import CommandError
from runtime_edge.cli.client import _array
from runtime_edge.serve.client import Client, ClientError, TensorValue

HEADER = "Inference-Header-Content-Length"


@pytest.fixture
def ask():
    """An inference whose answer has a given body."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(60)
    threads = []

    def answer(body, headers):
        sock, _ = listener.accept()
        with sock, sock.makefile("rb") as file:
            length = 0
            while (line := file.readline()) != b"\r\n":
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            file.read(length)
            lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers, "", ""]
            sock.sendall("\r\n".join(lines).encode() + body)

    def infer(body, *headers):
        thread = threading.Thread(target=answer, args=(body, headers))
        thread.start()
        threads.append(thread)
        client = Client(f"http://127.0.0.1:{listener.getsockname()[1]}")
        try:
            return client.infer("m", [TensorValue("x", "FP32", (1,), bytes(4))])
        finally:
            client.close()

    yield infer
    for thread in threads:
        thread.join(60)
    listener.close()


def output(**changes):
    entry = {"name": "y", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}
    return json.dumps({"outputs": [{**entry, **changes}]}).encode()


def test_a_right_answer(ask):
    text = output()
    (tensor,) = ask(text + b"abcd", f"{HEADER}: {len(text)}")
    assert tensor == TensorValue("y", "FP32", (1,), b"abcd")


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", ()),
        (b"<html>", ()),
        (b"\xff\xfe", ()),
        (b"[" * 100_000, ()),
        (b"[]", ()),
        (b'{"outputs": 3}', ()),
        (b'{"outputs": ["y"]}', ()),
        (output(parameters={}), ()),
        (output(shape=None), ()),
        (output(shape=["x"]), ()),
        (output(), ()),  # its four bytes are missing
        *((output(parameters={"binary_data_size": size}), ()) for size in (-1, "4", 1 << 70, None)),
        (output() + b"abcd", (f"{HEADER}: many",)),
    ],
)
def test_a_wrong_answer_is_an_error_of_the_client(ask, body, headers):
    with pytest.raises(ClientError, match="the answer is none of the Open Inference Protocol"):
        ask(body, *headers)


@pytest.mark.parametrize(
    ("datatype", "shape"), [("BYTES", (1,)), ("FP32", (2,)), ("FP64", (1,)), ("FP32", (-1, -1))]
)
def test_an_output_that_is_no_array_is_said_so(datatype, shape):
    with pytest.raises(CommandError, match=rf"output 'y': 4 bytes cannot be {datatype} of shape"):
        _array(TensorValue("y", datatype, shape, b"abcd"))
