"""The null device: records what an engine asks for and computes nothing.

A skeleton for new devices, and a way to see on any machine what a plan would do.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

from planformat.fingerprint import DeviceFingerprint
from planformat.plan import Buffer, CodeObject, Kernel, Step
from runtime_edge.buffers import HeldBuffer
from runtime_edge.device.base import HostStaging, ProgramMemory
from runtime_edge.errors import BindingError


class NullProgram:
    """Records runs. See `Program` in base.py."""

    def __init__(self, log: list[str], steps: Sequence[Step], num_bindings: int) -> None:
        """A program whose runs go to `log`."""
        self._log = log
        self._steps = steps
        self.addresses: Any = [0] * num_bindings

    def run(self) -> None:
        """Record one line per step."""
        addresses = " ".join(hex(address) for address in self.addresses)
        self._log.append(f"run {addresses}".rstrip())
        self._log.extend(f"step {step.name}" for step in self._steps)

    def run_timed(self) -> list[float]:
        """Record a run; no step takes any time."""
        self.run()
        return [0.0] * len(self._steps)

    def close(self) -> None:
        """Record the end."""
        self._log.append("close program")


class NullEvent:
    """Happens when it is recorded. See `Event` in base.py."""

    def query(self) -> bool:
        """Always."""
        return True

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def time_us(self) -> float:
        """Time stands still."""
        return 0.0


class NullStream:
    """Does everything at once. See `Stream` in base.py."""

    def __init__(self, log: list[str]) -> None:
        """A stream whose commands go to `log`."""
        self._log = log
        self._tickets = 0

    def enqueue(self, program: NullProgram, keep: Any) -> int:
        """Record a run."""
        del keep
        self._log.append("enqueue")
        program.run()
        self._tickets += 1
        return self._tickets

    def is_done(self, ticket: int) -> bool:
        """Whether the ticket was given out."""
        return ticket <= self._tickets

    def wait_for(self, ticket: int) -> None:
        """Nothing to wait for."""
        del ticket

    def record(self, event: NullEvent) -> None:
        """Record the command."""
        del event
        self._log.append("record event")

    def wait(self, event: NullEvent) -> None:
        """Record the command."""
        del event
        self._log.append("wait for event")

    def call(self, function: Callable[[], None]) -> None:
        """Call the function now."""
        self._log.append("call")
        function()

    def synchronize(self) -> None:
        """Record the command."""
        self._log.append("synchronize")

    def close(self) -> None:
        """Record the end."""
        self._log.append("close stream")

    def __enter__(self) -> NullStream:
        """The stream itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()


class NullCode:
    """Code that is not loaded. See `Code` in base.py."""

    def __init__(self, log: list[str]) -> None:
        """Code whose programs write to `log`."""
        self._log = log

    def create_program(
        self,
        steps: Sequence[Step],
        memory: ProgramMemory,
        *,
        num_bindings: int,
        num_workers: int,
        tuned_workers: int,
    ) -> NullProgram:
        """Record the program."""
        del memory, tuned_workers
        self._log.append(f"create program of {len(steps)} steps for {num_workers} workers")
        return NullProgram(self._log, steps, num_bindings)

    def create_stream(self) -> NullStream:
        """A stream that does everything at once."""
        return NullStream(self._log)

    def create_event(self) -> NullEvent:
        """An event that has always happened."""
        return NullEvent()

    def close(self) -> None:
        """Record the end."""
        self._log.append("close code")


class NullDevice:
    """Any device that is wanted. Memory is real host memory. See `Device` in base.py.

    Attributes:
        log: one line per request, in order.
    """

    needs_staging = False

    def __init__(self, fingerprint: DeviceFingerprint) -> None:
        """A device that claims the fingerprint."""
        self.kind = fingerprint.device_kind
        self.log: list[str] = []
        self._fingerprint = fingerprint
        self._blocks: dict[int, Any] = {}

    def probe(self) -> DeviceFingerprint:
        """The claimed fingerprint."""
        return self._fingerprint

    def load_code(
        self, code_objects: Sequence[CodeObject], kernels: Sequence[Kernel], *, source: str
    ) -> NullCode:
        """Record what would be loaded."""
        del source
        self.log.append(f"load {len(code_objects)} code objects with {len(kernels)} kernels")
        return NullCode(self.log)

    def map_weights(
        self,
        weights: Buffer,
        memory: Any = None,
        allocator: Any = None,
        *,
        context_bytes: int = 0,
    ) -> tuple[int, Any]:
        """Where the weights are."""
        del memory, allocator, context_bytes
        self.log.append(f"map {len(weights)} bytes of weights")
        if len(weights) == 0:
            return 0, None
        held = HeldBuffer(weights, is_writable=False)
        return held.address, held

    def allocate(self, nbytes: int, alignment: int) -> int:
        """Zeroed host memory."""
        self.log.append(f"allocate {nbytes} bytes")
        block = (ctypes.c_char * (nbytes + alignment))()
        address = -(-ctypes.addressof(block) // alignment) * alignment
        self._blocks[address] = block
        return address

    def free(self, address: int) -> None:
        """Let the block go."""
        self.log.append("free")
        del self._blocks[address]

    def write(self, address: int, data: Buffer) -> None:
        """Copy to host memory."""
        ctypes.memmove(address, bytes(data), len(data))

    def read(self, address: int, nbytes: int) -> bytes:
        """Copy from host memory."""
        return ctypes.string_at(address, nbytes)

    def usable_workers(self) -> int:
        """One."""
        return 1

    def hold(self, value: Any, *, is_writable: bool) -> HeldBuffer:
        """Host memory with the buffer protocol."""
        return HeldBuffer(value, is_writable=is_writable)

    def adopt_stream(self, stream: Any) -> NullStream:
        """There are no streams but those made here."""
        raise BindingError(
            f"stream is {stream!r}; make one with Engine.create_stream() (there is no default "
            "stream)"
        )

    def create_staging(self, sizes: Sequence[int], allocator: Any = None) -> HostStaging:
        """Nobody asks: host memory is used in place."""
        raise NotImplementedError
