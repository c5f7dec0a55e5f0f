"""System shared memory that clients register: tensors travel without the socket.

A region that only the daemon's own user can write to is mapped, and kernels of devices that share
the host's memory read and write it in place. Others are read and written with pread and pwrite:
whoever shortens a mapped region in the middle of an execution ends the daemon with SIGBUS, which
nobody may do who could not send it a signal anyway.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
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
        identity: device and inode of the memory.
        mapping: of the part, None where it is not mapped; address: of its first byte, 0 without.
    """

    name: str
    key: str
    offset: int
    nbytes: int
    descriptor: int
    identity: tuple[int, int]
    mapping: memoryview | None = None
    address: int = 0
    num_users: int = 1

    def release(self) -> None:
        """One user less."""
        with _lock:
            self.num_users -= 1
            is_last = self.num_users == 0
        if is_last:
            self.mapping = None  # unmapped when the last view of it is gone
            os.close(self.descriptor)


_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class SharedTensor:
    """Part of a region that holds, or shall hold, a tensor. Counts as a user of the region."""

    region: Region
    offset: int
    nbytes: int

    @property
    def address(self) -> int:
        """Where it is mapped, 0 where it is not."""
        return self.region.address + self.offset if self.region.address else 0

    @property
    def view(self) -> memoryview:
        """Its bytes, of a mapped region."""
        assert self.region.mapping is not None
        return self.region.mapping[self.offset : self.offset + self.nbytes]

    def check(self) -> None:
        """See that the memory is still as long as it was.

        Raises:
            RequestError: 400: it is shorter.
        """
        region = self.region
        left = os.fstat(region.descriptor).st_size - region.offset - self.offset
        if left < self.nbytes:
            raise self._shortened(max(0, left))

    def overlaps(self, other: SharedTensor) -> bool:
        """Whether both have bytes in common, under whatever names."""
        begin = self.region.offset + self.offset
        other_begin = other.region.offset + other.offset
        return (
            self.region.identity == other.region.identity
            and begin < other_begin + other.nbytes
            and other_begin < begin + self.nbytes
        )

    def release(self) -> None:
        """The region is not used for this any more."""
        self.region.release()

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
            raise self._shortened(num_read)
        return body

    def write(self, data: bytes) -> None:
        """Put an output there.

        Raises:
            RequestError: 400: it cannot be written.
        """
        left = memoryview(data)
        at = self.region.offset + self.offset
        try:
            while left:  # a full file system takes a part, and refuses the next
                num_written = os.pwrite(self.region.descriptor, left, at)
                if num_written == 0:
                    raise OSError(errno.ENOSPC, "no more bytes are taken")
                at += num_written
                left = left[num_written:]
        except OSError as error:
            raise RequestError(
                400,
                f"shared memory region '{self.region.name}' cannot be written: {error}; "
                f"{len(left):,} of {len(data):,} bytes are missing",
            ) from error

    def _shortened(self, left: int) -> RequestError:
        return RequestError(
            400,
            f"shared memory region '{self.region.name}' gave {left:,} of {self.nbytes:,} bytes: it "
            "was made shorter after it was registered",
        )


def _map(region: Region) -> None:
    lead = region.offset % mmap.ALLOCATIONGRANULARITY
    block = mmap.mmap(region.descriptor, lead + region.nbytes, offset=region.offset - lead)
    region.mapping = memoryview(block)[lead:]
    region.address = ctypes.addressof(ctypes.c_char.from_buffer(block)) + lead


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
        identity = (status.st_dev, status.st_ino)
        region = Region(name, key, offset, nbytes, descriptor, identity)
        if status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            try:
                _map(region)
            except (OSError, ValueError) as error:
                os.close(descriptor)
                raise RequestError(
                    400, f"shared memory '{key}' cannot be mapped: {error}"
                ) from error
        self._regions[name] = region

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
