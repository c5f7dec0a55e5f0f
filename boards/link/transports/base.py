"""What the link asks of a transport, and the part that all of them share: two descriptors."""

from __future__ import annotations

import os
from typing import Protocol

from boards.errors import LinkError, LinkLostError

_READ_BYTES = 1 << 16


class Transport(Protocol):
    """Bytes to and from the other end; nothing here waits.

    Attributes:
        name: for messages.
        read_fd, write_fd: descriptors to wait on.
        payload_bytes: longest payload that suits the line.
        batch_bytes: how much is handed to `write` at once; small on slow lines, so that urgent
            frames need not wait behind others.
    """

    name: str
    read_fd: int
    write_fd: int
    payload_bytes: int
    batch_bytes: int

    def read(self) -> bytes:
        """What has arrived; empty when there is nothing. Raises LinkLostError at the end."""
        ...

    def write(self, data: bytes | memoryview) -> int:
        """Number of bytes that the line took. Raises LinkLostError when it takes none any more."""
        ...

    def set_rate(self, baud: int, stop_bits: int) -> None:
        """Change the rate of a serial line. Raises LinkError when this line cannot."""
        ...

    def close(self) -> None:
        """Give the line back."""
        ...


class DescriptorTransport:
    """A transport on two file descriptors, which it closes. See `Transport`."""

    def __init__(
        self,
        read_fd: int,
        write_fd: int,
        *,
        name: str,
        payload_bytes: int = 32768,
        batch_bytes: int = 65536,
    ) -> None:
        """Take over the descriptors; they may be one and the same."""
        self.name = name
        self.read_fd = read_fd
        self.write_fd = write_fd
        self.payload_bytes = payload_bytes
        self.batch_bytes = batch_bytes
        self._is_open = True
        for descriptor in {read_fd, write_fd}:
            os.set_blocking(descriptor, False)

    def read(self) -> bytes:
        """See `Transport.read`."""
        try:
            data = os.read(self.read_fd, _READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise LinkLostError(f"{self.name}: {error}") from error
        if not data:
            raise LinkLostError(f"{self.name}: the other end has closed the line")
        return data

    def write(self, data: bytes | memoryview) -> int:
        """See `Transport.write`."""
        try:
            return os.write(self.write_fd, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise LinkLostError(f"{self.name}: {error}") from error

    def set_rate(self, baud: int, stop_bits: int) -> None:
        """See `Transport.set_rate`."""
        raise LinkError(
            f"{self.name}: has no rate to set ({baud} baud, {stop_bits} stop bits were asked for)"
        )

    def close(self) -> None:
        """See `Transport.close`."""
        if self._is_open:
            self._is_open = False
            for descriptor in {self.read_fd, self.write_fd}:
                os.close(descriptor)
