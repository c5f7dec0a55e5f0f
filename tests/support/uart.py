"""Two pseudo-terminals joined like a serial cable: bytes arrive only when both rates agree."""

from __future__ import annotations

import contextlib
import os
import random
import select
import termios
import threading
import tty

_SPEEDS = {getattr(termios, f"B{rate}"): rate for rate in (9600, 115200, 230400, 460800, 921600)}


class Cable:
    """A cable between two ports.

    Attributes:
        near, far: paths of the ports.
        works_up_to: baud; above it bits are lost.
        is_cut: bytes vanish.
        loss: share of the reads from one port of which a part vanishes or is damaged.
        seen_rates: pairs of rates at which bytes were carried.
        num_late: reads that are still damaged after both ports agree on another rate, as when one
            of them had been late.
    """

    def __init__(self, works_up_to: int = 10_000_000) -> None:
        """Join two new ports."""
        self.works_up_to = works_up_to
        self.is_cut = False
        self.loss = 0.0
        self.num_late = 0
        self._agreed = (115200, 115200)
        self._num_spoilt = 0
        self._random = random.Random(1)
        self.seen_rates: set[tuple[int, int]] = set()
        self._masters, self._slaves = [], []
        for _ in range(2):
            master, slave = os.openpty()
            tty.setraw(slave)
            os.set_blocking(master, False)
            self._masters.append(master)
            self._slaves.append(slave)  # kept open: a port without user must not hang up
        self.near, self.far = (os.ttyname(slave) for slave in self._slaves)
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def rate(self, side: int) -> int:
        """Baud of one side."""
        return _SPEEDS.get(termios.tcgetattr(self._masters[side])[5], 38400)

    def write_far(self, data: bytes) -> None:
        """Bytes that appear at the near port, as if the far end had written them."""
        os.write(self._masters[0], data)

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([*self._masters, self._wake_read], [], [])
            if self._wake_read in ready:
                return
            for side in (0, 1):
                if self._masters[side] in ready:
                    self._carry(side)

    def _carry(self, side: int) -> None:
        try:
            data = os.read(self._masters[side], 4096)
        except OSError:
            return
        rates = self.rate(0), self.rate(1)
        self.seen_rates.add(rates)
        if self.is_cut:
            return
        if rates[0] != rates[1]:
            data = bytes((byte * 7 + 3) & 0xFF for byte in data[::2])
        elif self._is_late(rates):
            data = bytes(byte ^ 0x55 for byte in data)
        elif rates[0] > self.works_up_to:
            data = bytes(byte ^ (0x10 if i % 50 == 0 else 0) for i, byte in enumerate(data))
        if self._random.random() < self.loss:
            position = self._random.randrange(len(data))
            damaged = bytes((data[position] ^ 0x5A,)) if self._random.random() < 0.5 else b""
            data = data[:position] + damaged + data[position + 1 :]
        target = self._masters[1 - side]
        view = memoryview(data)
        while view:
            ready = select.select([self._wake_read], [target], [], 5.0)
            if self._wake_read in ready[0] or not ready[1]:
                return
            with contextlib.suppress(BlockingIOError):
                view = view[os.write(target, view) :]

    def _is_late(self, rates: tuple[int, int]) -> bool:
        if rates != self._agreed:
            self._agreed, self._num_spoilt = rates, 0
        self._num_spoilt += 1
        return rates != (115200, 115200) and self._num_spoilt <= self.num_late

    def close(self) -> None:
        """Take the cable away."""
        os.write(self._wake_write, b"x")
        self._thread.join(10)
        for descriptor in (*self._masters, *self._slaves, self._wake_read, self._wake_write):
            os.close(descriptor)

    def __enter__(self) -> Cable:
        """The cable."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Take it away."""
        self.close()
