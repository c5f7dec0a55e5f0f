"""System shared memory that clients register: tensors travel without the socket.

Regions are read and written with pread and pwrite, never mapped: a client that shortens its region
meanwhile gets an error, where a mapping would kill the daemon with SIGBUS.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from dataclasses import dataclass

from runtime_edge.serve.bodies import Body, BodyPool
from runtime_edge.serve.errors import RequestError

MAX_REGIONS = 256
_FOLDER = "/dev/shm"  # noqa: S108 (where POSIX shared memory lives, not a temporary file)
_KEY = re.compile(r"/[A-Za-z0-9_.\-]{1,200}")
_NAME = re.compile(r"[^/\x00-\x1f]{1,256}")


@dataclass(slots=True, eq=False)
class Region:
    """One registered region; closed when its last user is gone.

    Attributes:
        name: the client's; key: of shm_open; offset, nbytes: of the part that was registered.
    """

    name: str
    key: str
    offset: int
    nbytes: int
    descriptor: int
    num_users: int = 1

    def release(self) -> None:
        """One user less."""
        with _lock:
            self.num_users -= 1
            is_last = self.num_users == 0
        if is_last:
            os.close(self.descriptor)


_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class SharedTensor:
    """Part of a region that holds, or shall hold, a tensor. Counts as a user of the region."""

    region: Region
    offset: int
    nbytes: int

    def read(self, bodies: BodyPool) -> Body:
        """The tensor's bytes, in memory of the daemon.

        Raises:
            RequestError: 400: the region is shorter now; 503: no memory.
        """
        body = bodies.take(self.nbytes)
        if body is None:
            raise bodies.refusal(self.nbytes)
        at = self.region.offset + self.offset
        num_read = os.preadv(self.region.descriptor, [body.view], at) if self.nbytes else 0
        if num_read != self.nbytes:
            body.release()
            raise RequestError(
                400,
                f"shared memory region '{self.region.name}' gave {num_read:,} of "
                f"{self.nbytes:,} bytes: it was made shorter after it was registered",
            )
        return body

    def write(self, data: bytes) -> None:
        """Put an output there.

        Raises:
            RequestError: 400: it is larger than the place, or cannot be written.
        """
        if len(data) > self.nbytes:
            raise RequestError(
                400,
                f"shared memory region '{self.region.name}': the output has {len(data):,} bytes, "
                f"shared_memory_byte_size is {self.nbytes:,}",
            )
        try:
            os.pwrite(self.region.descriptor, data, self.region.offset + self.offset)
        except OSError as error:
            raise RequestError(
                400, f"shared memory region '{self.region.name}' cannot be written: {error}"
            ) from error


class SharedMemoryRegions:
    """Registered regions by name."""

    def __init__(self, bodies: BodyPool) -> None:
        """None registered."""
        self.bodies = bodies
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: int, nbytes: int) -> None:
        """Open a region.

        Raises:
            RequestError: 400: the name is taken, or there is no such memory of that size.
        """
        if not _NAME.fullmatch(name):
            raise RequestError(400, "a region's name has 1 to 256 characters, none of them '/'")
        if name in self._regions:
            raise RequestError(400, f"shared memory region '{name}' is registered already")
        if len(self._regions) >= MAX_REGIONS:
            raise RequestError(400, f"{MAX_REGIONS} regions are registered; unregister some")
        if not _KEY.fullmatch(key) or key in ("/.", "/.."):
            raise RequestError(400, f"shared memory key {key!r:.80} is not of the form /NAME")
        try:
            descriptor = os.open(_FOLDER + key, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise RequestError(400, f"shared memory '{key}': {error.strerror}") from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or offset + nbytes > status.st_size or nbytes < 1:
            os.close(descriptor)
            raise RequestError(
                400,
                f"shared memory '{key}' has {status.st_size:,} bytes, {nbytes:,} from byte "
                f"{offset:,} on were asked for",
            )
        self._regions[name] = Region(name, key, offset, nbytes, descriptor)

    def unregister(self, name: str | None = None) -> None:
        """Forget a region, or all. Requests in work still use theirs.

        Raises:
            RequestError: 400: no such region.
        """
        if name is not None and name not in self._regions:
            raise RequestError(400, f"shared memory region '{name}' is not registered")
        for known in [name] if name is not None else list(self._regions):
            self._regions.pop(known).release()

    def status(self, name: str | None = None) -> list[dict[str, object]]:
        """What is registered, as the protocol shows it.

        Raises:
            RequestError: 400: no such region.
        """
        if name is not None and name not in self._regions:
            raise RequestError(400, f"shared memory region '{name}' is not registered")
        return [
            {"name": r.name, "key": r.key, "offset": r.offset, "byte_size": r.nbytes}
            for r in self._regions.values()
            if name is None or r.name == name
        ]

    def tensor(self, name: str, offset: int, nbytes: int, where: str) -> SharedTensor:
        """A part of a region, checked; its `region` must be released.

        Raises:
            RequestError: 400: no such region, or not inside it.
        """
        region = self._regions.get(name)
        if region is None:
            raise RequestError(400, f"{where}: shared memory region '{name}' is not registered")
        if offset + nbytes > region.nbytes:
            raise RequestError(
                400,
                f"{where}: bytes {offset:,} to {offset + nbytes:,} are not inside shared memory "
                f"region '{name}' of {region.nbytes:,} bytes",
            )
        with _lock:
            region.num_users += 1
        return SharedTensor(region, offset, nbytes)
