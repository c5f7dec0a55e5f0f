"""The primary context of a GPU: retained through pycuda, made current around each piece of work.

Two ways in. `with context:` pushes it by the driver alone, for ctypes calls (a microsecond). `with
context.pycuda(...)` pushes it onto pycuda's stack, which pycuda wants when its objects are made or
destroyed. Never the second inside the first: pycuda would pop what it did not push.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
import weakref
from collections.abc import Iterator
from typing import Any

from runtime_edge.device.cuda_driver import CudaError, Driver, open_driver
from runtime_edge.errors import LoadError

_log = logging.getLogger(__name__)
_contexts: dict[int, GpuContext] = {}
_lock = threading.Lock()


class GpuContext:
    """The primary context of one GPU in this process. Made by `open_context`.

    Attributes:
        ordinal: number of the GPU; driver: of this process.
        handle: the `CUcontext`.
    """

    def __init__(self, ordinal: int, driver: Driver, pycuda: Any) -> None:
        """Retain the context; it stays retained until the process ends, as other users of it do."""
        self.ordinal = ordinal
        self.driver = driver
        self._pycuda = pycuda
        self._garbage: list[list[Any]] = []
        self._popped = ctypes.c_void_p()
        self._retain()

    def __enter__(self) -> GpuContext:
        """Make it current for driver calls of this thread."""
        self.driver.push(self.handle)
        return self

    def __exit__(self, *exception: object) -> None:
        """Make current what was current before."""
        self.driver.pop(ctypes.byref(self._popped))

    @contextlib.contextmanager
    def pycuda(self, what: str) -> Iterator[Any]:
        """Make it current for pycuda, which is the value; its errors become `CudaError`.

        Args:
            what: the action, for messages.
        """
        pycuda = self._pycuda
        try:
            self._retained.push()
            try:
                self._destroy_garbage()
                yield pycuda
            finally:
                pycuda.Context.pop()
        except pycuda.Error as error:
            translated = self._error(error, what)
            if translated.is_fatal:
                self.driver.dead_contexts.add(self.handle)
            raise translated from error

    @property
    def is_dead(self) -> bool:
        """Whether a fatal error was met: nothing can be destroyed one by one any more."""
        return self.handle in self.driver.dead_contexts

    def free_memory(self) -> tuple[int, int]:
        """Bytes of device memory that are free, and that there are, by the driver's counter."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        with self:
            self.driver.memory_info(ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def own(self, owner: Any) -> Owned:
        """A list of driver and pycuda objects that go with the owner."""
        return Owned(owner, self)

    def _retain(self) -> None:
        pycuda = self._pycuda
        try:
            pycuda.init()
            self._retained = pycuda.Device(self.ordinal).retain_primary_context()
        except pycuda.Error as error:
            raise self._error(error, f"GPU {self.ordinal} (numbers start at 0)") from error
        self.handle: int = self._retained.handle
        # The destructor in pycuda would detach it as an ordinary context, which it is not.
        keep_for_ever(self._retained)

    def _is_switch_safe(self) -> bool:
        """Whether pycuda's stack and the driver's agree (not inside `with context`)."""
        top = self._pycuda.Context.get_current()
        if top is None:
            return True
        current = ctypes.c_void_p()
        self.driver.current(ctypes.byref(current))
        return bool(top.handle == (current.value or 0))

    def _destroy(self, items: list[Any]) -> None:
        """Destroy objects now, or with the next use of pycuda when a switch is not safe here."""
        if self.is_dead:
            _log.warning(
                "GPU %d: %d objects are left to the end of the process, because its context met a "
                "fatal error",
                self.ordinal,
                len(items),
            )
            items.clear()
            return
        self._garbage.append(items)
        if self._is_switch_safe():
            with self.pycuda("clean-up"):
                pass

    def _destroy_garbage(self) -> None:
        while self._garbage:
            items = self._garbage.pop()
            while items:
                name, thing = items.pop()
                try:
                    if name:
                        getattr(self.driver, name)(thing)
                    else:
                        destroy_object(thing)
                except (CudaError, self._pycuda.Error) as error:
                    _log.warning("GPU %d: clean-up failed: %s", self.ordinal, error)

    def _error(self, error: Exception, what: str) -> CudaError:
        return self.driver.error(self.driver.code_of(str(error)), f"{what} ({error})")


class Owned:
    """Objects that are destroyed together, last made first: on `close` or with their owner.

    Nothing is destroyed at interpreter exit: the driver does that with the process.
    """

    def __init__(self, owner: Any, context: GpuContext, *keep: Any) -> None:
        """An empty list; `keep` lives until it is destroyed."""
        self._items: list[Any] = []
        self.close = weakref.finalize(owner, _destroy, context, self._items, keep)
        self.close.atexit = False

    def add(self, destroy: str, handle: int) -> int:
        """Own a handle that the named driver function destroys."""
        self._items.append((destroy, handle))
        return handle

    def add_object(self, thing: Any) -> list[Any]:
        """Own a pycuda object.

        Returns:
            A list with it, emptied when it is destroyed; keep no other reference, since the last
            one must go while the context is pycuda's present one.
        """
        keep_for_ever(thing)  # until it is destroyed here: not at interpreter exit
        box = [thing]
        self._items.append(("", box))
        return box

    def add_stream(self, pycuda: Any, flags: int) -> int:
        """Make and own a pycuda stream; the value is its handle."""
        stream = pycuda.Stream(flags)
        handle: int = stream.handle
        self.add_object(stream)
        return handle


def _destroy(context: GpuContext, items: list[Any], keep: Any) -> None:
    del keep
    if items:
        context._destroy(items)


def keep_for_ever(thing: Any) -> None:
    """Let a pycuda object's destructor never run."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def destroy_object(box: list[Any]) -> None:
    """Destroy an object that `keep_for_ever` holds; its context is pycuda's present one.

    Args:
        box: a list with the object, or empty; emptied.
    """
    while box:
        thing = box.pop()
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(thing))
        if hasattr(thing, "free"):
            thing.free()
        del thing  # a stream is destroyed with its last reference


def open_context(ordinal: int) -> GpuContext:
    """The primary context of a GPU.

    Raises:
        LoadError: no driver, or no pycuda.
        CudaError: no such GPU, or it cannot be used.
    """
    with _lock:
        found = _contexts.get(ordinal)
        if found is None:
            driver = open_driver()
            found = _contexts[ordinal] = GpuContext(ordinal, driver, _import_pycuda())
        return found


def _import_pycuda() -> Any:
    try:
        import pycuda.driver
    except ImportError as error:
        raise LoadError(
            f"the device kind 'cuda' needs pycuda, which cannot be imported ({error}); install it "
            "with: pip install 'edgeplan[cuda]'"
        ) from error
    return pycuda.driver
