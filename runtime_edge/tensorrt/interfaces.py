"""Interfaces that programs implement or hand in: loggers, profilers, allocators, recorders."""

from __future__ import annotations

import enum
import sys


class LogSeverity(enum.IntEnum):
    """How serious a message is; smaller is worse."""

    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger:
    """Base class of loggers; override `log`."""

    Severity = LogSeverity
    INTERNAL_ERROR = LogSeverity.INTERNAL_ERROR
    ERROR = LogSeverity.ERROR
    WARNING = LogSeverity.WARNING
    INFO = LogSeverity.INFO
    VERBOSE = LogSeverity.VERBOSE

    def log(self, severity: LogSeverity, msg: str) -> None:
        """Take a message."""
        raise NotImplementedError(f"{type(self).__name__}.log is not implemented")


class Logger(ILogger):
    """Writes messages up to a severity to standard error."""

    def __init__(self, min_severity: LogSeverity = LogSeverity.WARNING) -> None:
        """Keep messages of this severity and worse."""
        self.min_severity = min_severity

    def log(self, severity: LogSeverity, msg: str) -> None:
        """Write a message."""
        if severity <= self.min_severity:
            sys.stderr.write(f"[edgeplan] [{LogSeverity(severity).name[0]}] {msg}\n")


class IProfiler:
    """Gets the time of every step; override `report_layer_time`."""

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        """Take the time of a step."""
        raise NotImplementedError(f"{type(self).__name__}.report_layer_time is not implemented")


class Profiler(IProfiler):
    """Prints the time of every step."""

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        """Print the time of a step."""
        sys.stdout.write(f"{layer_name}: {ms}ms\n")


class IGpuAllocator:
    """Device memory of the program's own; override `allocate` and `deallocate` (or `free`)."""

    def allocate(self, size: int, alignment: int, flags: int) -> int | None:
        """Address of device memory, None or 0 when there is none."""
        raise NotImplementedError(f"{type(self).__name__}.allocate is not implemented")

    def deallocate(self, memory: int) -> bool:
        """Take memory back."""
        self.free(memory)
        return True

    def free(self, memory: int) -> None:
        """Take memory back (the older name)."""
        raise NotImplementedError(f"{type(self).__name__}.free is not implemented")


class IErrorRecorder:
    """Collects errors; override what is needed."""

    def report_error(self, val: int, desc: str) -> bool:
        """Take an error."""
        raise NotImplementedError(f"{type(self).__name__}.report_error is not implemented")


class AllocatorAdapter:
    """A program's allocator as the runtime's `Allocator`."""

    def __init__(self, allocator: IGpuAllocator) -> None:
        """Wrap an allocator."""
        self._allocator = allocator

    def allocate(self, nbytes: int, alignment: int) -> int:
        """Memory from the program. Raises MemoryError when it has none."""
        address = self._allocator.allocate(nbytes, alignment, 0)
        if not address:
            raise MemoryError(
                f"{type(self._allocator).__name__} gave no memory for {nbytes:,} bytes"
            )
        return int(address)

    def free(self, address: int) -> None:
        """Give it back."""
        self._allocator.deallocate(address)
