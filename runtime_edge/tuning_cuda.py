"""Candidates on a CUDA GPU; see `tuning.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runtime_edge.tuning import Timer, TuneJob


class CudaTuneDevice:
    """One GPU. A candidate's runs follow each other in one graph, as steps do in a plan."""

    def __init__(self, number: int, *, is_flushing: bool) -> None:
        """Open the GPU.

        Args:
            number: of the GPU.
            is_flushing: overwrite the L2 cache before each run.

        Raises:
            LoadError, DeviceError: no driver, no pycuda, or no such GPU.
        """
        from runtime_edge.device.cuda import CudaDevice

        self._device = CudaDevice(number)
        self._is_flushing = is_flushing
        self._buffers: list[int] = []

    def buffers(self, sizes: Sequence[int]) -> list[int]:
        """Fresh zeroed device memory; the last call's is given back."""
        self.close()
        for size in sizes:
            address = self._device.allocate(max(256, size), 256)
            self._device.write(address, bytes(max(256, size)))
            self._buffers.append(address)
        return self._buffers

    def timer(self, job: TuneJob, addresses: Sequence[int]) -> Timer:
        """Load the candidate's code and capture its launches."""
        from runtime_edge.device.cuda_timing import CudaModule, CudaTimer, TimedCudaLaunch

        module: Any = CudaModule(self._device, job.code, job.launches[0].symbol)
        launches = [
            TimedCudaLaunch(
                module.function(launch.symbol),
                tuple(addresses),
                launch.grid,
                launch.block,
                launch.cluster,
                launch.shared_memory_bytes,
                launch.is_dependent,
            )
            for launch in job.launches
        ]
        return CudaTimer(module, launches, is_flushing=self._is_flushing)

    def close(self) -> None:
        """Give the buffers back."""
        for address in self._buffers:
            self._device.free(address)
        self._buffers = []
