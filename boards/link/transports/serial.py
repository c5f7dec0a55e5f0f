"""Serial lines, by pyserial."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import termios
from typing import Any

from boards.errors import LinkError, LinkLostError
from boards.link.transports.base import DescriptorTransport

MAX_RATE_ERROR = 0.03  # a receiver samples the tenth bit half a bit late at 5 %; both ends share it
_TCGETS2 = 0x802C542A  # Linux on x86 and ARM
_TERMIOS2_OSPEED = 10  # index of c_ospeed among the 32-bit words of struct termios2


class SerialTransport(DescriptorTransport):
    """One serial port, opened for this process alone."""

    def __init__(self, path: str, baud: int, stop_bits: int = 1) -> None:
        """Open the port.

        Raises:
            LinkError: pyserial is missing, the port is not there, in use, or refuses the rate.
        """
        try:
            import serial
        except ImportError as error:
            raise LinkError(
                f"{path}: serial lines need the package pyserial; install it with: "
                "pip install 'edgeplan[serial]'"
            ) from error
        try:
            port: Any = serial.Serial(
                path,
                baud,
                stopbits=stop_bits,
                timeout=0,
                write_timeout=0,
                exclusive=True,
            )
        except (serial.SerialException, OSError, ValueError) as error:
            raise LinkError(
                f"{path}: cannot be opened at {baud} baud: {error}; is another program using it, "
                "and may this user (group dialout)?"
            ) from error
        self._port = port
        with contextlib.suppress(OSError, NotImplementedError, ValueError, AttributeError):
            port.set_low_latency_mode(True)  # USB adapters wait 16 ms otherwise; others lack it
        super().__init__(port.fd, port.fd, name=path, payload_bytes=2048, batch_bytes=1)
        self._tell_nothing_from_the_end()
        self._check_rate(baud)

    def set_rate(self, baud: int, stop_bits: int) -> None:
        """Change the rate once everything written is out.

        Raises:
            LinkError: the port refuses the rate, or misses it by more than MAX_RATE_ERROR.
        """
        import serial

        try:
            termios.tcdrain(self.read_fd)
            self._port.stopbits = stop_bits
            self._port.baudrate = baud
        except (serial.SerialException, OSError, ValueError, termios.error) as error:
            raise LinkError(f"{self.name}: refuses {baud} baud: {error}") from error
        os.set_blocking(self.read_fd, False)
        self._tell_nothing_from_the_end()
        self._check_rate(baud)

    def read(self) -> bytes:
        """See `Transport.read`."""
        try:
            data = os.read(self.read_fd, 1 << 16)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise LinkLostError(f"{self.name}: {error}; was it unplugged?") from error
        if not data:
            raise LinkLostError(f"{self.name}: the line was hung up or unplugged")
        return data

    def close(self) -> None:
        """Give the port back."""
        if self._is_open:
            self._is_open = False
            self._port.close()

    def _tell_nothing_from_the_end(self) -> None:
        """Let an empty read mean a line that was hung up, not one that is silent (VMIN 1)."""
        attributes = termios.tcgetattr(self.read_fd)
        attributes[6][termios.VMIN] = 1
        termios.tcsetattr(self.read_fd, termios.TCSANOW, attributes)

    def _check_rate(self, baud: int) -> None:
        words = array.array("I", bytes(64))
        try:
            fcntl.ioctl(self.read_fd, _TCGETS2, words, True)
        except OSError:
            return  # the system does not tell
        actual = words[_TERMIOS2_OSPEED]
        if actual and abs(actual - baud) > MAX_RATE_ERROR * baud:
            raise LinkError(
                f"{self.name}: was asked for {baud} baud and runs at {actual}, more than "
                f"{MAX_RATE_ERROR:.0%} off; choose another rate"
            )
