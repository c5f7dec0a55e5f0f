"""The steps of one profile on the CPU, and the threads that share them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from runtime_edge.buffers import HeldBuffer
from runtime_edge.device.cpu_cores import cores_for_pool
from runtime_edge.device.cpu_native import CpuAbi, Patch, StepDesc, check_fork, num_forks, own


class CpuProgram:
    """Steps of one profile as one native call. See `Program` in base.py."""

    def __init__(
        self,
        abi: CpuAbi,
        steps: Sequence[StepDesc],
        args: Sequence[int],
        patches: Sequence[tuple[int, int, int]],
        *,
        num_bindings: int,
        num_workers: int,
        scratch: int = 0,
        scratch_stride_bytes: int = 0,
        keep: Any = None,
    ) -> None:
        """Copy the tables into native memory and start num_workers - 1 threads.

        Args:
            abi: support code to run with.
            steps: one description per step; first_arg indexes `args`.
            args: argument values, 64-bit.
            patches: (argument index, binding index, offset in bytes) of arguments that follow
                bindings.
            num_bindings: length of `addresses`.
            num_workers: the calling thread included.
            scratch: address of num_workers blocks of scratch_stride_bytes.
            scratch_stride_bytes: multiple of 64.
            keep: lives as long as the program.
        """
        self._abi = abi
        self._forks = num_forks()
        self._num_steps = len(steps)
        cores = cores_for_pool(num_workers) if num_workers > 1 else ()
        pool = _Pool(abi, num_workers, cores)
        ordered = sorted(patches, key=lambda patch: patch[1])
        handle = abi.program_create(
            pool.handle,
            (StepDesc * max(1, len(steps)))(*steps),
            len(steps),
            (ctypes.c_void_p * max(1, len(args)))(*args),
            len(args),
            (Patch * max(1, len(ordered)))(*(Patch(*patch) for patch in ordered)),
            len(ordered),
            num_bindings,
            scratch,
            scratch_stride_bytes,
        )
        # `keep` of the finalizer holds the pool, so it goes after the program.
        self._close = own(self, handle, "program", abi.program_destroy, pool, keep)
        self._pool = pool
        self.handle: int = handle
        self.addresses = (ctypes.c_void_p * max(1, num_bindings))()
        self.addresses_address = ctypes.addressof(self.addresses)
        self._step_ns = (ctypes.c_int64 * max(1, self._num_steps))()

    def run(self) -> None:
        """One inference on this thread and the pool."""
        check_fork(self._forks)
        self._abi.program_run(self.handle, self.addresses_address, None)

    def run_timed(self) -> list[float]:
        """One inference with a barrier after each step; microseconds of each."""
        check_fork(self._forks)
        self._abi.program_run(self.handle, self.addresses_address, self._step_ns)
        return [self._step_ns[i] / 1000 for i in range(self._num_steps)]

    def measure(self, repeats: int, flush: HeldBuffer | None = None) -> list[float]:
        """Microseconds of `repeats` runs; a flush buffer is written before each, not timed."""
        times = (ctypes.c_int64 * max(1, repeats))()
        flush_range = (flush.address, flush.nbytes) if flush else (None, 0)
        self._abi.program_measure(self.handle, self.addresses_address, repeats, *flush_range, times)
        return [times[i] / 1000 for i in range(repeats)]

    def worker_cores(self) -> list[int]:
        """Core to which each worker but the first is pinned, -1 when it is not."""
        num = 1
        cores = []
        while (core := self._abi.pool_worker_cpu(self._pool.handle, num)) >= 0:
            cores.append(core)
            num += 1
        return cores

    def close(self) -> None:
        """Stop the threads and free the tables; nothing may be running."""
        self._close()


class _Pool:
    """Worker threads."""

    def __init__(self, abi: CpuAbi, num_workers: int, cores: Sequence[int]) -> None:
        array = (ctypes.c_int32 * max(1, len(cores)))(*cores)
        self.handle: int = abi.pool_create(num_workers, array, len(cores))
        own(self, self.handle, f"pool of {num_workers} workers", abi.pool_destroy, abi)
