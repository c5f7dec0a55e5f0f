"""Shared objects from memory, and the functions of the CPU code ABI that each one exports.

The declarations mirror `edgeplan_cpu.h`, ABI version 1.
"""

from __future__ import annotations

import ctypes
import itertools
import logging
import os
import weakref
from collections.abc import Callable
from typing import Any

from planformat.plan import Buffer
from runtime_edge.errors import DeviceError, LoadError

_log = logging.getLogger(__name__)

ABI_VERSION = 1
STEP_CONCURRENT = 1

_P = ctypes.c_void_p
_I32 = ctypes.c_int32
_I64 = ctypes.c_int64


class StepDesc(ctypes.Structure):
    """`edgeplan_step_desc`."""

    _fields_ = (
        ("function", _P),
        ("first_arg", _I64),
        ("num_units", _I64),
        ("min_units", _I64),
        ("flags", ctypes.c_uint64),
    )


class Patch(ctypes.Structure):
    """`edgeplan_patch`."""

    _fields_ = (("arg", _I64), ("binding", _I64), ("offset_bytes", _I64))


CALLBACK = ctypes.CFUNCTYPE(None, _P)
_names = itertools.count()


class CpuModule:
    """A shared object loaded from memory.

    The bytes go to an anonymous file (memfd); where the system refuses to map code from one, to a
    private temporary file that is removed at once. The dynamic linker recognises files by name, so
    the descriptor stays open, and its name taken, until the module is closed.
    """

    def __init__(self, data: Buffer, name: str = "code object") -> None:
        """Load a shared object.

        Args:
            data: the bytes of an ELF shared object for this machine.
            name: for messages.

        Raises:
            LoadError: it cannot be loaded; the text says what the dynamic linker answered.
        """
        self.name = name
        try:
            self._library, descriptor = _load_from_memfd(data)
            self.loaded_from = "memfd"
        except OSError as memfd_error:
            try:
                self._library, descriptor = _load_from_file(data)
            except OSError as error:
                raise LoadError(
                    f"{name}: the dynamic linker refused it: {error} (anonymous file: "
                    f"{memfd_error}); build the plan for this machine, and mount a folder without "
                    "noexec as TMPDIR if the system forbids code in anonymous files"
                ) from error
            self.loaded_from = "file"
            _log.info("%s: loaded through a temporary file, memfd refused: %s", name, memfd_error)
        self._handle: int = self._library._handle
        self._close = weakref.finalize(self, _unload, self._handle, descriptor)
        self._close.atexit = False

    def address(self, symbol: str) -> int:
        """Address of an exported function.

        Raises:
            LoadError: the shared object does not export it.
        """
        try:
            function = getattr(self._library, symbol)
        except AttributeError as error:
            raise LoadError(
                f"{self.name}: symbol '{symbol}' is not exported; the plan's kernels and code do "
                "not belong together, build it again"
            ) from error
        address = ctypes.cast(function, _P).value
        assert address is not None
        return address

    def has(self, symbol: str) -> bool:
        """Whether the shared object exports the symbol."""
        return hasattr(self._library, symbol)

    def close(self) -> None:
        """Unload; no address of this module may be used afterwards."""
        self._close()


class CpuAbi:
    """The support functions of a module, typed. Functions that cannot block keep the GIL."""

    def __init__(self, module: CpuModule) -> None:
        """Bind the functions of a module that contains the CPU support code.

        Raises:
            LoadError: no support code inside, or another ABI version.
        """
        self.module = module
        version_symbol = "edgeplan_cpu_abi_version"
        if not module.has(version_symbol):
            raise LoadError(
                f"{module.name}: does not contain the CPU support code ('{version_symbol}' is not "
                "exported); build the plan again"
            )

        def bind(symbol: str, result: Any, *arguments: Any, holds_gil: bool = False) -> Any:
            make = ctypes.PYFUNCTYPE if holds_gil else ctypes.CFUNCTYPE
            return make(result, *arguments)(module.address("edgeplan_" + symbol))

        version = bind("cpu_abi_version", ctypes.c_uint32)()
        if version != ABI_VERSION:
            raise LoadError(
                f"{module.name}: speaks CPU ABI version {version}, this runtime speaks "
                f"{ABI_VERSION}; "
                + ("update edgeplan here" if version > ABI_VERSION else "build the plan again")
            )
        self.pool_create = bind("pool_create", _P, _I32, ctypes.POINTER(_I32), _I32)
        self.pool_destroy = bind("pool_destroy", None, _P)
        self.pool_worker_cpu = bind("pool_worker_cpu", _I32, _P, _I32)
        self.program_create = bind(
            "program_create", _P, _P, _P, _I64, _P, _I64, _P, _I64, _I64, _P, _I64
        )
        self.program_destroy = bind("program_destroy", None, _P)
        self.program_run = bind("program_run", None, _P, _P, _P)
        self.program_measure = bind("program_measure", None, _P, _P, _I64, _P, _I64, _P)
        self.stream_create = bind("stream_create", _P)
        self.stream_destroy = bind("stream_destroy", None, _P)
        self.stream_try_run = bind("stream_try_run", _I64, _P, _P, _P, holds_gil=True)
        self.stream_try_record = bind("stream_try_record", _I64, _P, _P, holds_gil=True)
        self.stream_try_wait = bind("stream_try_wait", _I64, _P, _P, holds_gil=True)
        self.stream_try_call = bind("stream_try_call", _I64, _P, CALLBACK, _P, holds_gil=True)
        self.stream_wait_space = bind("stream_wait_space", None, _P)
        self.stream_synchronize = bind("stream_synchronize", None, _P, _I64)
        self.stream_completed = bind("stream_completed", _I64, _P, holds_gil=True)
        self.event_create = bind("event_create", _P)
        self.event_destroy = bind("event_destroy", None, _P)
        self.event_query = bind("event_query", _I32, _P, holds_gil=True)
        self.event_synchronize = bind("event_synchronize", None, _P)
        self.event_time_ns = bind("event_time_ns", _I64, _P, holds_gil=True)


def check_fork(created_at: int) -> None:
    """Refuse native objects whose threads stayed in the parent process.

    Args:
        created_at: `num_forks()` when the object was made.

    Raises:
        DeviceError: this process is a forked child and the object is older.
    """
    if created_at != _forks:
        raise DeviceError(
            "this context or stream was made before the process forked and its threads stayed in "
            "the parent; load the plan in the child (multiprocessing: use the 'spawn' method)"
        )


def num_forks() -> int:
    """How often this process image has been the child of a fork."""
    return _forks


def own(
    owner: Any, handle: int | None, what: str, destroy: Callable[[int], None], *keep: Any
) -> weakref.finalize[Any, Any]:
    """Tie a native object to a Python object; `keep` lives until it is destroyed.

    Nothing is destroyed at interpreter exit (the process ends, and threads may be at work) nor in
    a forked child (its threads are not there).

    Raises:
        DeviceError: handle is null.
    """
    if not handle:
        raise DeviceError(
            f"{what} could not be made: memory or threads were refused "
            "(see ulimit -u, ulimit -v and the container's limits)"
        )
    finalizer = weakref.finalize(owner, _destroy, destroy, handle, _forks, keep)
    finalizer.atexit = False
    return finalizer


def _destroy(destroy: Callable[[int], None], handle: int, created_at: int, keep: Any) -> None:
    del keep
    if created_at == _forks:
        destroy(handle)


def _count_fork() -> None:
    global _forks
    _forks += 1


_forks = 0
os.register_at_fork(after_in_child=_count_fork)


def _load_from_memfd(data: Buffer) -> tuple[ctypes.CDLL, int]:
    descriptor = os.memfd_create("edgeplan-code", os.MFD_CLOEXEC)
    try:
        _write_all(descriptor, data)
        return _open_library(f"/proc/self/fd/{descriptor}"), descriptor
    except BaseException:
        os.close(descriptor)
        raise


def _load_from_file(data: Buffer) -> tuple[ctypes.CDLL, int]:
    import tempfile  # rarely needed, and slow to import

    # The counter makes the name new even if a later folder got the same random part.
    with tempfile.TemporaryDirectory(prefix=f"edgeplan-{os.getpid()}-{next(_names)}-") as folder:
        path = os.path.join(folder, "code.so")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o700)
        try:
            _write_all(descriptor, data)
        finally:
            os.close(descriptor)
        return _open_library(path), -1


def _open_library(path: str) -> ctypes.CDLL:
    return ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_LOCAL)


def _write_all(descriptor: int, data: Buffer) -> None:
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _unload(handle: int, descriptor: int) -> None:
    from _ctypes import dlclose

    dlclose(handle)
    if descriptor >= 0:
        os.close(descriptor)
