"""Batches of any size over the profiles of a plan: pick, split, pad. Imports NumPy.

A plan with profiles of batch 1, 4 and 8 runs a batch of 11 as 8 and 4, the last row of the 4 padded
with zeros. Which cover is cheapest follows from the latencies that the plan measured at build time,
where every profile has one, else from the number of rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from planformat.plan import Profile
from runtime_edge.context import ExecutionContext
from runtime_edge.engine import Engine
from runtime_edge.errors import BindingError
from runtime_edge.memory import ALIGNMENT_BYTES


@dataclass(frozen=True, slots=True)
class Piece:
    """One inference of a batch: `num_rows` rows from `start` on, in a profile."""

    profile: str
    start: int
    num_rows: int


class BatchRunner:
    """Runs batches of any size on one engine; for one thread at a time. Close it after use.

    All profiles work in one arena, which is taken once, at the start.
    """

    def __init__(
        self, engine: Engine, *, arena: Any = None, num_workers: int | None = None
    ) -> None:
        """Make a context per profile.

        Args:
            engine: its profiles must differ in dimension 0 of some bindings only; a plan with one
                profile has its batch in dimension 0 of every input.
            arena: memory for the largest profile's context, as in `Engine.create_context`, but no
                allocator; None: the config's allocator, or the runtime's own memory.
            num_workers: as in `Engine.create_context`.

        Raises:
            BindingError: the profiles differ in another dimension, or name no batch.
            DeviceError: no memory for the arena.
            StrictModeError: strict mode and no arena.
        """
        self.engine = engine
        profiles = [engine.profile(name) for name in engine.profiles]
        self._batched = _batched_bindings(engine, profiles)
        sizes = {profile.name: self._batch_of(profile) for profile in profiles}
        self._sizes = dict(sorted(sizes.items(), key=lambda item: item[1]))
        self._costs = _costs(profiles, sizes)
        self._covers: list[tuple[float, str, int]] = [(0.0, "", 0)]
        self._contexts: dict[str, ExecutionContext] = {}
        self._allocator: Any = engine.config.allocator or engine.device
        self._arena: int | None = None
        needed = max(engine.context_bytes(p.name, num_workers=num_workers) for p in profiles)
        if needed and arena is None and not engine.config.strict:
            self._arena = self._allocator.allocate(needed, ALIGNMENT_BYTES)
            arena = (self._arena, needed)
        try:
            for profile in profiles:
                self._contexts[profile.name] = engine.create_context(
                    profile=profile.name, arena=arena, num_workers=num_workers
                )
        except BaseException:
            self.close()
            raise

    @property
    def largest_batch(self) -> int:
        """Rows of the largest profile."""
        return max(self._sizes.values())

    def pieces(self, num_rows: int) -> list[Piece]:
        """How a batch is split: full pieces of the largest profile, then the cheapest cover.

        Raises:
            BindingError: num_rows is less than 1.
        """
        if num_rows < 1:
            raise BindingError(f"a batch of {num_rows} rows: expected at least 1")
        largest = max(self._sizes, key=lambda name: self._sizes[name])
        step = self._sizes[largest]
        full = num_rows // step
        names = [largest] * full + self._cover(num_rows - full * step)
        pieces, start = [], 0
        for name in names:
            rows = min(self._sizes[name], num_rows - start)
            pieces.append(Piece(name, start, rows))
            start += rows
        return pieces

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """One batch.

        Args:
            inputs: NumPy arrays by name, of the plan's element types; those with a batch have the
                same number of rows in dimension 0.

        Returns:
            Outputs by name; those with a batch have as many rows.

        Raises:
            BindingError: an input is missing, unknown or does not fit.
        """
        num_rows = self._num_rows(inputs)
        if num_rows in self._sizes.values():
            name = next(name for name, size in self._sizes.items() if size == num_rows)
            return self._contexts[name].execute(inputs)
        parts = [self._run_piece(piece, inputs) for piece in self.pieces(num_rows)]
        return {
            name: np.concatenate([part[name] for part in parts]) if name in self._batched else value
            for name, value in parts[0].items()
        }

    def close(self) -> None:
        """Close the contexts and give the arena back."""
        for context in self._contexts.values():
            context.close()
        self._contexts.clear()
        arena, self._arena = self._arena, None
        if arena is not None:
            self._allocator.free(arena)

    def __enter__(self) -> BatchRunner:
        """The runner itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()

    def _batch_of(self, profile: Profile) -> int:
        index = next(i for i, b in enumerate(self.engine.bindings) if b.name in self._batched)
        return profile.shapes[index][0]

    def _cover(self, num_rows: int) -> list[str]:
        """Profiles that take `num_rows` (less than the largest) at the least cost, large first."""
        for rows in range(len(self._covers), num_rows + 1):  # what earlier batches left over
            options = [
                (self._costs[name] + self._covers[max(rows - size, 0)][0], name, rows - size)
                for name, size in self._sizes.items()
            ]
            self._covers.append(min(options, key=lambda option: option[0]))
        names = []
        while num_rows > 0:
            _, name, num_rows = self._covers[num_rows]
            names.append(name)
        return sorted(names, key=lambda name: -self._sizes[name])

    def _num_rows(self, inputs: Mapping[str, Any]) -> int:
        rows: dict[str, int] = {}
        for binding in self.engine.bindings:
            if binding.is_input and binding.name in self._batched:
                given = inputs.get(binding.name)
                if given is None:
                    raise BindingError(f"input '{binding.name}' is missing")
                shape = np.shape(given)
                if not shape:
                    raise BindingError(f"input '{binding.name}' is a scalar, it needs a batch")
                rows[binding.name] = shape[0]
        if len(set(rows.values())) != 1:
            text = ", ".join(f"'{name}' {count}" for name, count in rows.items())
            raise BindingError(f"the inputs differ in their number of rows: {text}")
        return next(iter(rows.values()))

    def _run_piece(self, piece: Piece, inputs: Mapping[str, Any]) -> dict[str, Any]:
        size = self._sizes[piece.profile]
        own = {
            name: _rows(array, piece, size) if name in self._batched else array
            for name, array in inputs.items()
        }
        outputs = self._contexts[piece.profile].execute(own)
        return {
            name: array[: piece.num_rows] if name in self._batched else array
            for name, array in outputs.items()
        }


def _rows(array: Any, piece: Piece, size: int) -> Any:
    """The piece's rows, padded with zeros to the profile's size."""
    part = np.asarray(array)[piece.start : piece.start + piece.num_rows]
    if piece.num_rows == size:
        return part
    padded = np.zeros((size, *part.shape[1:]), part.dtype)
    padded[: piece.num_rows] = part
    return padded


def _batched_bindings(engine: Engine, profiles: list[Profile]) -> frozenset[str]:
    """Names of the bindings whose dimension 0 is the batch."""
    batched = set()
    sizes: list[set[int]] = [set() for _ in profiles]
    for index, binding in enumerate(engine.bindings):
        shapes = [profile.shapes[index] for profile in profiles]
        if len({shape[1:] for shape in shapes}) > 1 or len({len(shape) for shape in shapes}) > 1:
            raise BindingError(
                f"binding '{binding.name}' has the shapes {[list(s) for s in shapes]}: profiles "
                "can stand for batches only if they differ in dimension 0; choose one by name"
            )
        is_only = len(profiles) == 1 and bool(shapes[0]) and binding.is_input
        if len({shape[:1] for shape in shapes}) > 1 or is_only:
            batched.add(binding.name)
            for found, shape in zip(sizes, shapes, strict=True):
                found.add(shape[0])
    if len(profiles) == 1 and len(sizes[0]) == 1:
        (size,) = sizes[0]
        shapes_of = dict(zip(engine.bindings, profiles[0].shapes, strict=True))
        batched |= {b.name for b, shape in shapes_of.items() if shape[:1] == (size,)}
    for profile, found in zip(profiles, sizes, strict=True):
        if len(found) != 1:
            raise BindingError(
                f"profile '{profile.name}' has the batch sizes {sorted(found)}; expected exactly "
                "one in dimension 0 of its inputs"
            )
    for binding in engine.bindings:
        if not binding.is_input and binding.name not in batched:
            raise BindingError(
                f"output '{binding.name}' does not grow with the batch: its rows cannot be told "
                "apart in a split or padded batch; run the profile by itself"
            )
    return frozenset(batched)


def _costs(profiles: list[Profile], sizes: Mapping[str, int]) -> dict[str, float]:
    """Microseconds of one inference of each profile, or its rows where times are not known."""
    latencies = {p.name: p.canary.latency_us if p.canary else None for p in profiles}
    if all(latencies.values()):
        return {name: float(value or 0.0) for name, value in latencies.items()}
    return {name: float(size) for name, size in sizes.items()}
