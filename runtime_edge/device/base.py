"""The device interface. `null.py` is the skeleton for a new device.

Lifetimes: code outlives its programs, streams and events; every object keeps what it needs alive,
and `close` is optional for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from planformat.fingerprint import DeviceFingerprint
from planformat.plan import Buffer, CodeObject, Kernel, Step


@dataclass(frozen=True, slots=True)
class ProgramMemory:
    """Addresses that a program's arguments are relative to.

    scratch: num_workers blocks of scratch_stride_bytes (CPU); both 0 when no step needs any.
    """

    arena: int
    weights: int
    scratch: int = 0
    scratch_stride_bytes: int = 0


class Program(Protocol):
    """The steps of one profile with their memory; one run at a time."""

    @property
    def addresses(self) -> Any:
        """Mutable sequence of integers: the address of each binding, in binding order."""
        ...

    def run(self) -> None:
        """One inference with the addresses as they are; returns when it is done."""
        ...

    def run_timed(self) -> list[float]:
        """As `run`, with the time of each step in microseconds."""
        ...

    def close(self) -> None:
        """Release threads and tables."""
        ...


class Event(Protocol):
    """A point in a stream's work."""

    def query(self) -> bool:
        """Whether everything recorded so far has happened (also when nothing was)."""
        ...

    def synchronize(self) -> None:
        """Wait until `query` would be true."""
        ...

    def time_us(self) -> float:
        """When it last happened, in microseconds of the device's clock."""
        ...


class Stream(Protocol):
    """Work that is done in order, beside the caller."""

    def enqueue(self, program: Any, keep: Any) -> int:
        """Enqueue one run with the program's present addresses.

        The program and `keep` live until it is done. Returns a ticket.
        """
        ...

    def is_done(self, ticket: int) -> bool:
        """Whether the work with this ticket has finished."""
        ...

    def wait_for(self, ticket: int) -> None:
        """Wait until the work with this ticket has finished."""
        ...

    def record(self, event: Any) -> None:
        """Let the event happen when all work enqueued so far is done."""
        ...

    def wait(self, event: Any) -> None:
        """Let later work wait until what the event has recorded so far has happened."""
        ...

    def call(self, function: Callable[[], None]) -> None:
        """Call a short Python function in order with the other work."""
        ...

    def synchronize(self) -> None:
        """Wait until all work enqueued so far is done."""
        ...

    def close(self) -> None:
        """Finish the work and end the stream."""
        ...

    def __enter__(self) -> Any:
        """The stream itself."""
        ...

    def __exit__(self, *exception: object) -> None:
        """Close."""
        ...


class Code(Protocol):
    """Loaded code objects of one variant."""

    def create_program(
        self,
        steps: Sequence[Step],
        memory: ProgramMemory,
        *,
        num_bindings: int,
        num_workers: int,
        tuned_workers: int,
    ) -> Program:
        """Make the steps launchable. Takes host memory for tables and threads."""
        ...

    def create_stream(self) -> Stream:
        """A stream of its own."""
        ...

    def create_event(self) -> Event:
        """An event, not recorded yet."""
        ...

    def close(self) -> None:
        """Unload as soon as nothing uses the code any more."""
        ...


class HostStaging(Protocol):
    """Memory of the device beside bindings in host memory."""

    def execute(self, program: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """One inference on host buffers (`HeldBuffer`, None in the other list), to its end."""
        ...

    def close(self) -> None:
        """Give the memory back."""
        ...


class Device(Protocol):
    """One device.

    Attributes:
        kind: `cpu` or `cuda`.
        needs_staging: kernels do not work on ordinary host memory.
    """

    kind: str
    needs_staging: bool

    def probe(self) -> DeviceFingerprint:
        """The live device's fingerprint."""
        ...

    def load_code(
        self, code_objects: Sequence[CodeObject], kernels: Sequence[Kernel], *, source: str
    ) -> Code:
        """Load machine code and find every kernel.

        Raises:
            LoadError: not loadable, a symbol is missing, or another ABI version.
        """
        ...

    def map_weights(
        self,
        weights: Buffer,
        memory: Any = None,
        allocator: Any = None,
        *,
        context_bytes: int = 0,
    ) -> tuple[int, Any]:
        """Bring the weights to the device.

        Args:
            weights: the region of the plan.
            memory: the caller's memory for them; None lets the device choose.
            allocator: `Allocator` to use, where the device needs memory for them.
            context_bytes: what the first context will ask for; a device that allocates in large
                pages may take both from one.

        Returns:
            Their address, and an object to keep while they are used.

        Raises:
            MemoryRegionError: memory is too small or misaligned.
        """
        ...

    def allocate(self, nbytes: int, alignment: int) -> int:
        """Device memory of the runtime's own."""
        ...

    def free(self, address: int) -> None:
        """Give back what `allocate` returned."""
        ...

    def write(self, address: int, data: Buffer) -> None:
        """Copy from host to device memory."""
        ...

    def read(self, address: int, nbytes: int) -> bytes:
        """Copy from device to host memory."""
        ...

    def hold(self, value: Any, *, is_writable: bool) -> Any:
        """What a caller's object is to the device.

        Returns:
            An object like `HeldBuffer`, or a pair (address, nbytes) of untyped memory.

        Raises:
            TypeError, BufferError, ValueError: nothing that the device can use.
        """
        ...

    def adopt_stream(self, stream: Any) -> Stream:
        """A stream for the caller's object; one from `Code.create_stream` is not asked for.

        Raises:
            BindingError: the device has no streams of this kind.
        """
        ...

    def create_staging(self, sizes: Sequence[int], allocator: Any = None) -> HostStaging:
        """Memory through which bindings in host memory go, on a device that needs it.

        Args:
            sizes: bytes of each binding.
            allocator: `Allocator` to take device memory from; None is the device itself.
        """
        ...

    def usable_workers(self) -> int:
        """Largest number of workers that have a core of their own."""
        ...
