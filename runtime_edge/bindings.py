"""The binding table of a context: what the caller passes -> checked addresses.

An object that was passed before is recognised by identity and not looked at again: its buffer is
held, so that neither its address nor its size can have changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from planformat.datatypes import DataType, TensorFormat
from planformat.plan import Binding
from planformat.tensors import storage_bytes
from runtime_edge.buffers import HeldBuffer
from runtime_edge.errors import BindingError

_MISSING = object()


class _Slot:
    """One binding and what it is bound to."""

    __slots__ = ("address", "binding", "grain", "holder", "index", "nbytes", "shape", "value")

    def __init__(self, index: int, binding: Binding, shape: tuple[int, ...]) -> None:
        self.index = index
        self.binding = binding
        self.shape = shape
        self.nbytes = storage_bytes(shape, binding.dtype, binding.format)
        self.grain = binding.dtype.size_bytes  # kept: looking it up costs a Python-level hash
        self.value: Any = _MISSING
        self.address = 0
        self.holder: Any = None

    def text(self) -> str:
        kind = "input" if self.binding.is_input else "output"
        is_linear = self.binding.format is TensorFormat.LINEAR
        layout = "" if is_linear else f" {self.binding.format.name}"
        extents = "x".join(map(str, self.shape)) or "scalar"
        return (
            f"{kind} '{self.binding.name}' ({self.binding.dtype.text} {extents}{layout}, "
            f"{self.nbytes:,} bytes)"
        )


class BindingTable:
    """Addresses of all bindings of one profile.

    Attributes:
        kept: what must live while work with the present addresses is under way.
    """

    def __init__(
        self,
        bindings: Sequence[Binding],
        shapes: Sequence[tuple[int, ...]],
        addresses: Any,
        hold: Callable[..., Any] = HeldBuffer,
    ) -> None:
        """A table with nothing bound.

        Args:
            bindings: of the plan; shapes: of the profile, in binding order.
            shapes: one per binding.
            addresses: mutable sequence that receives an address per binding.
            hold: `Device.hold`: makes addresses of the caller's objects.
        """
        self._hold = hold
        self._slots = [
            _Slot(index, binding, shape)
            for index, (binding, shape) in enumerate(zip(bindings, shapes, strict=True))
        ]
        self._addresses = addresses
        self.kept: tuple[Any, ...] = ()

    def update(self, values: Mapping[str, Any]) -> None:
        """Bind every input and output.

        Args:
            values: name to address, pair (address, nbytes), or C-contiguous buffer; outputs must
                be writable.

        Raises:
            BindingError: a name is missing or unknown, or a value does not fit its binding.
        """
        if len(values) != len(self._slots):
            self._raise_names(values)
        changed = False
        for slot in self._slots:
            value = values.get(slot.binding.name, _MISSING)
            if value is slot.value and value is not _MISSING:
                continue
            if value is _MISSING:
                self._raise_names(values)
            address, holder = _resolve(slot, value, self._hold)
            slot.address, slot.holder, slot.value = address, holder, value
            self._addresses[slot.index] = address
            changed = True
        if changed:
            self._check_overlaps()
            self.kept = tuple(slot.holder for slot in self._slots if slot.holder is not None)

    def clear(self) -> None:
        """Let go of all objects."""
        for slot in self._slots:
            slot.value, slot.holder = _MISSING, None
        self.kept = ()

    def _raise_names(self, values: Mapping[str, Any]) -> None:
        known = [slot.binding.name for slot in self._slots]
        missing = [slot.text() for slot in self._slots if slot.binding.name not in values]
        unknown = [name for name in values if name not in known]
        parts = []
        if missing:
            parts.append("missing " + ", ".join(missing))
        if unknown:
            parts.append("unknown " + ", ".join(f"'{name}'" for name in unknown))
        raise BindingError(f"bindings: {'; '.join(parts)}; the plan has {', '.join(known)}")

    def _check_overlaps(self) -> None:
        ranges = sorted((s.address, s.address + s.nbytes, s.index) for s in self._slots if s.nbytes)
        reach, owner = 0, -1
        for begin, end, index in ranges:
            slot = self._slots[index]
            other = self._slots[owner]
            if begin < reach and not (other.binding.is_input and slot.binding.is_input):
                # Refuse the pair for good: the next update looks at both again.
                slot.value = other.value = _MISSING
                raise BindingError(
                    f"{slot.text()} at {begin:#x} overlaps {other.text()}, which ends "
                    f"at {reach:#x}; outputs need memory of their own"
                )
            if end > reach:
                reach, owner = end, index


def _resolve(slot: _Slot, value: Any, hold: Callable[..., Any]) -> tuple[int, Any]:
    holder: Any = None
    region = value
    if not isinstance(value, int) and not (isinstance(value, tuple) and len(value) == 2):
        holder = region = _hold(slot, value, hold)
        if isinstance(region, tuple):
            holder = value
    if isinstance(region, int):
        address = region
    elif isinstance(region, tuple):
        address, size = region
        if size < slot.nbytes:
            raise BindingError(f"{slot.text()}: the memory given has {size:,} bytes only")
    else:
        address = region.address
    if slot.nbytes and (address <= 0 or address % slot.grain):
        raise BindingError(
            f"{slot.text()}: address {address:#x} is not a positive multiple of {slot.grain}, the "
            "size of one element"
        )
    return address, holder


def _hold(slot: _Slot, value: Any, hold: Callable[..., Any]) -> Any:
    binding = slot.binding
    try:
        held = hold(value, is_writable=not binding.is_input)
    except TypeError as error:
        is_array = hasattr(value, "__cuda_array_interface__")
        raise BindingError(
            f"{slot.text()}: got {type(value).__name__}{' in device memory' if is_array else ''}; "
            "pass an address in the device's memory (for a CPU plan: host memory), a pair "
            "(address, nbytes), or an object with the buffer protocol"
        ) from error
    except (BufferError, ValueError) as error:
        raise BindingError(
            f"{slot.text()}: the buffer of the {type(value).__name__} cannot be used ({error}); it "
            "must be C-contiguous" + ("" if binding.is_input else " and writable")
        ) from error
    if isinstance(held, tuple):
        return held
    if held.nbytes != slot.nbytes:
        raise BindingError(
            f"{slot.text()}: the {type(value).__name__} has {held.nbytes:,} bytes, shape "
            f"{list(held.shape)}; pick the profile with that shape, or reshape the data"
        )
    if held.is_bytes or (binding.dtype is DataType.BFLOAT16 and held.dtype is DataType.UINT16):
        return held
    if held.dtype is not binding.dtype:
        raise BindingError(
            f"{slot.text()}: elements are {held.dtype.text if held.dtype else 'of another type'}; "
            f"convert them to {binding.dtype.text} first"
        )
    if binding.format is TensorFormat.LINEAR and len(held.shape) > 1 and held.shape != slot.shape:
        raise BindingError(
            f"{slot.text()}: the shape is {list(held.shape)}; reshape it to {list(slot.shape)}"
        )
    return held
