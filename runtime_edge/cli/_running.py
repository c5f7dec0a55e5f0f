"""One inference on arrays, whatever their batch: what `run` does and `replay` repeats."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime_edge.engine import Engine


@contextmanager
def runner(
    engine: Engine, profile: str | None, inputs: Mapping[str, Any]
) -> Iterator[Callable[[Mapping[str, Any]], dict[str, Any]]]:
    """The profile named; else the one that has the inputs' shapes; else all, for any batch."""
    if profile is None:
        profile = fitting_profile(engine, inputs)
    if profile is None and _is_other_batch(engine, inputs):
        from runtime_edge.batching import BatchRunner

        with BatchRunner(engine) as batches:
            yield batches.run
        return
    with engine.create_context(profile=profile) as context:
        yield context.execute


def fitting_profile(engine: Engine, inputs: Mapping[str, Any]) -> str | None:
    """Name of the first profile that has the inputs' shapes, None when none has."""
    shapes = {name: array.shape for name, array in inputs.items()}
    for name in engine.profiles:
        own = {b.name: engine.binding_shape(b.name, name) for b in engine.bindings if b.is_input}
        if own == shapes:
            return name
    return None


def _is_other_batch(engine: Engine, inputs: Mapping[str, Any]) -> bool:
    """Whether every input has the default profile's shape but for dimension 0."""
    own = {b.name: engine.binding_shape(b.name) for b in engine.bindings if b.is_input}
    return own.keys() == inputs.keys() and all(
        len(array.shape) == len(own[name]) > 0 and array.shape[1:] == own[name][1:]
        for name, array in inputs.items()
    )
