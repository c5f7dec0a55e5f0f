"""Compiles CUDA C++ with one libnvrtc, in a process of its own.

Two libnvrtc of one major version cannot live in one process, and a compiler that crashes must not
take the build with it. The process is started with the file's path and uses the standard library
only, so that it starts in a few hundredths of a second. It reads requests from stdin and answers
on stdout, one frame each; it ends when stdin ends.

A frame is `<u32 header bytes> <u64 payload bytes> <header: JSON object> <payload>`, little-endian.
First the worker sends `{"version": [12, 6]}` or `{"error": text}`. A request is
`{"architecture": "sm_87", "options": [...], "headers": {name: text}}` with the source as payload;
an answer is `{"is_compiled": bool, "log": text}` with the cubin or PTX as payload. The
architecture decides which: `sm_87` gives a cubin, `compute_53` gives PTX.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
from typing import IO, Any

_LENGTHS = struct.Struct("<IQ")


def write_frame(stream: IO[bytes], header: dict[str, Any], payload: bytes = b"") -> None:
    """Write one frame and flush."""
    text = json.dumps(header).encode()
    stream.write(_LENGTHS.pack(len(text), len(payload)) + text + payload)
    stream.flush()


def read_frame(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """Read one frame; None when the other side has ended, within a frame too."""
    lengths = stream.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    num_header, num_payload = _LENGTHS.unpack(lengths)
    header, payload = stream.read(num_header), stream.read(num_payload)
    if len(header) < num_header or len(payload) < num_payload:
        return None
    return json.loads(header), payload


class NvrtcError(Exception):
    """Libnvrtc refuses a call; the text names call and code."""


class Nvrtc:
    """One libnvrtc, called through ctypes."""

    def __init__(self, library: str, builtins: str) -> None:
        """Load a library; raises OSError.

        The builtins library is loaded first: CUDA 13.0's libnvrtc has no run path and would not
        find it by itself.
        """
        self._builtins = ctypes.CDLL(builtins, ctypes.RTLD_GLOBAL)
        self._library = ctypes.CDLL(library)
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def version(self) -> tuple[int, int]:
        """Version of the library, e.g. (12, 6)."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        return major.value, minor.value

    def compile(
        self, source: bytes, architecture: str, options: list[str], headers: dict[str, str]
    ) -> tuple[bytes, str]:
        """Code, empty when the source is refused, and the compiler's log."""
        program = ctypes.c_void_p()
        names = (ctypes.c_char_p * len(headers))(*(name.encode() for name in headers))
        texts = (ctypes.c_char_p * len(headers))(*(text.encode() for text in headers.values()))
        self._call(
            "nvrtcCreateProgram",
            ctypes.byref(program),
            ctypes.c_char_p(source),
            ctypes.c_char_p(b"kernel.cu"),
            ctypes.c_int(len(headers)),
            texts,
            names,
        )
        try:
            given = [f"--gpu-architecture={architecture}", *options]
            array = (ctypes.c_char_p * len(given))(*(option.encode() for option in given))
            status = self._library.nvrtcCompileProgram(program, ctypes.c_int(len(given)), array)
            log = self._fetch(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
            if status != 0:
                name = self._library.nvrtcGetErrorString(status).decode()
                return b"", f"{log}\n{name}".strip() + "\n"
            if architecture.startswith("sm_"):
                return self._fetch(program, "CUBIN"), log
            return self._fetch(program, "PTX").rstrip(b"\0"), log
        finally:
            self._call("nvrtcDestroyProgram", ctypes.byref(program))

    def _fetch(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(f"nvrtcGet{what}", program, buffer)
        return buffer.raw

    def _call(self, function: str, *arguments: object) -> None:
        status = getattr(self._library, function)(*arguments)
        if status != 0:
            name = self._library.nvrtcGetErrorString(status).decode()
            raise NvrtcError(f"{function} failed with {name} ({status})")


def main(library: str, builtins: str) -> int:
    """Serve requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the compiler prints must not get between the frames
    try:
        nvrtc = Nvrtc(library, builtins)
        write_frame(answers, {"version": list(nvrtc.version())})
    except (OSError, NvrtcError) as error:
        write_frame(answers, {"error": str(error)})
        return 1
    while (frame := read_frame(sys.stdin.buffer)) is not None:
        request, source = frame
        try:
            code, log = nvrtc.compile(
                source, request["architecture"], request["options"], request["headers"]
            )
        except NvrtcError as error:
            code, log = b"", f"{error}\n"
        write_frame(answers, {"is_compiled": bool(code), "log": log}, code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
