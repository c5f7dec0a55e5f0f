"""Memory of the device for every binding of a profile, held by its owner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from planformat.canary import canary_input
from planformat.plan import Buffer
from planformat.tensors import storage_elems
from runtime_edge.errors import BindingError
from runtime_edge.memory import ALIGNMENT_BYTES

if TYPE_CHECKING:
    from runtime_edge.engine import Engine


class DeviceBindings:
    """Bindings to enqueue with, one allocation each. Closes as a context manager or by `close`.

    Attributes:
        addresses: by name of the binding.
    """

    def __init__(self, engine: Engine, profile: str | None = None) -> None:
        """Take memory; what lies in it is undefined. Raises DeviceError when it is refused."""
        self.addresses: dict[str, int] = {}
        self._engine = engine
        self._profile = profile
        # Looked up once: benchmarks time copies of every inference.
        self._sizes = {b.name: engine.binding_bytes(b.name, profile) for b in engine.bindings}
        try:
            for name, size in self._sizes.items():
                self.addresses[name] = engine.device.allocate(size, ALIGNMENT_BYTES)
        except BaseException:
            self.close()
            raise

    def fill(self, seed: int) -> None:
        """Write the canary's inputs for a seed (SPEC.md section 9)."""
        shapes = self._engine.profile(self._profile).shapes
        for index, (binding, shape) in enumerate(zip(self._engine.bindings, shapes, strict=True)):
            if binding.is_input:
                count = storage_elems(shape, binding.format)
                data = canary_input(seed, index, count, binding.dtype)
                self._engine.device.write(self.addresses[binding.name], data)

    def write(self, inputs: Mapping[str, Buffer]) -> None:
        """Write inputs as they lie in memory. Raises BindingError for a wrong name or size."""
        for name, data in inputs.items():
            if name not in self.addresses:
                raise BindingError(f"no input '{name}'; the plan has {', '.join(self.addresses)}")
            wanted = self._sizes[name]
            given = memoryview(data).nbytes
            if given != wanted:
                raise BindingError(f"input '{name}': got {given:,} bytes, expected {wanted:,}")
            self._engine.device.write(self.addresses[name], data)

    def read(self, name: str) -> bytes:
        """The bytes of a binding."""
        return self._engine.device.read(self.addresses[name], self._sizes[name])

    def close(self) -> None:
        """Give the memory back. Closing twice is fine."""
        addresses, self.addresses = self.addresses, {}
        for address in addresses.values():
            self._engine.device.free(address)

    def __enter__(self) -> DeviceBindings:
        """The bindings themselves."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()
