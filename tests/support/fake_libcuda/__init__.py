"""A stand-in for libcuda.so.1, compiled when it is first wanted, for tests without a GPU.

A "cubin" is a host shared object: host functions in the place of kernels (host_kernel.h), or CUDA
C++ compiled for emulated threads (support.cuda_shim.compile_emulated). Streams are threads, so that
work is as asynchronous as on a device. The library is loaded into this process under the name of
the real one, so that pycuda and the runtime find it.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
_FLAGS = ["-O1", "-std=gnu11", "-fPIC", "-shared", "-fvisibility=hidden", "-fno-sanitize=all"]

NAME = "Stand-in Orin"
MEMORY_BYTES = 1 << 30
ATTRIBUTES = {
    13: 1_300_000,  # clock, kHz
    16: 16,  # multiprocessors
    18: 0,  # integrated
    36: 3_199_000,  # memory clock, kHz
    37: 256,  # bus, bits
    38: 4 << 20,  # L2
    75: 8,
    76: 7,
    81: 167_936,  # shared memory per multiprocessor
    97: 166_912,  # shared memory per block, opt-in
}
"""`CUdevice_attribute` number to value: a Jetson AGX Orin with memory of its own."""


class FakeCuda:
    """Controls of the loaded stand-in. State is that of the process; `reset` undoes settings."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """Take the library's control functions."""
        self.library = library
        library.fake_calls.restype = library.fake_live.restype = ctypes.c_long
        library.fake_calls.argtypes = library.fake_live.argtypes = (ctypes.c_char_p,)
        library.fake_fail.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.c_long)
        library.fake_set_memory.argtypes = (ctypes.c_int, ctypes.c_size_t)
        library.fake_set_name.argtypes = (ctypes.c_int, ctypes.c_char_p)
        library.fake_used_bytes.restype = ctypes.c_size_t
        self._failing: set[str] = set()
        self.reset()

    def reset(self) -> None:
        """One device as in ATTRIBUTES, CUDA 12.6, nothing fails."""
        for name in self._failing:
            self.library.fake_fail(name.encode(), 0, -1)
        self._failing.clear()
        self.set_num_devices(1)
        self.set_version(12, 6)
        for device in range(4):
            self.library.fake_set_memory(device, MEMORY_BYTES)
            self.library.fake_set_name(device, NAME.encode())
            for number, value in ATTRIBUTES.items():
                self.set_attribute(device, number, value)

    def calls(self, name: str) -> int:
        """How often a driver function was called, by its name without `_v2`."""
        return int(self.library.fake_calls(name.encode()))

    def live(self, kind: str) -> int:
        """How many there are: memory, host memory, stream, event, graph, module."""
        return int(self.library.fake_live(kind.encode()))

    def all_live(self) -> dict[str, int]:
        """`live` of every kind."""
        kinds = ("memory", "host memory", "stream", "event", "graph", "module")
        return {kind: self.live(kind) for kind in kinds}

    def used_bytes(self) -> int:
        """Device memory that is allocated."""
        return int(self.library.fake_used_bytes())

    def fail(self, name: str, code: int, *, after: int = 0) -> None:
        """Let one call of a driver function fail, after so many that succeed."""
        self._failing.add(name)
        self.library.fake_fail(name.encode(), code, after)

    def set_attribute(self, device: int, number: int, value: int) -> None:
        """Change a device attribute."""
        self.library.fake_set_attribute(device, number, value)

    def set_memory(self, nbytes: int) -> None:
        """Change the memory size of device 0."""
        self.library.fake_set_memory(0, nbytes)

    def set_version(self, major: int, minor: int) -> None:
        """Change the CUDA version of the driver."""
        self.library.fake_set_version(major * 1000 + minor * 10)

    def set_num_devices(self, number: int) -> None:
        """Change how many devices there are, up to 4."""
        self.library.fake_set_num_devices(number)


@functools.cache
def library_path() -> Path:
    """Compile the stand-in; the file is called libcuda.so.1, for LD_LIBRARY_PATH."""
    sources = sorted(FOLDER.glob("*.c"))
    flags = ["-Wall", "-Wextra", "-Werror", "-Wl,-soname,libcuda.so.1"]
    return _compile([str(path) for path in sources], "libcuda.so.1", flags)


@functools.cache
def load() -> FakeCuda:
    """Load the stand-in into this process, before anything asks for the real libcuda.so.1."""
    return FakeCuda(ctypes.CDLL(str(library_path()), mode=ctypes.RTLD_GLOBAL))


@functools.cache
def compile_kernels(source: str) -> bytes:
    """A shared object that the stand-in takes for a cubin, from C with EP_HOST_KERNEL."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.c"
        path.write_text('#include "host_kernel.h"\n' + source)
        return _compile([str(path)], "kernels.so", ["-I", str(FOLDER)]).read_bytes()


def _compile(sources: list[str], name: str, flags: list[str]) -> Path:
    """Compile once per content; the result stays in the temporary folder."""
    content = [Path(source).read_bytes() for source in sources]
    content += [path.read_bytes() for path in sorted(FOLDER.glob("*.h"))]
    digest = hashlib.sha256(b"\0".join([*content, repr(flags).encode()])).hexdigest()[:16]
    target = Path(tempfile.gettempdir()) / f"edgeplan-stand-in-{digest}" / name
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / name
            command = [sys.executable, "-m", "ziglang", "cc", *_FLAGS, *flags, *sources]
            subprocess.run([*command, "-o", str(made), "-lpthread", "-ldl"], check=True)
            made.replace(target)  # at once, whoever else is compiling the same
    return target
