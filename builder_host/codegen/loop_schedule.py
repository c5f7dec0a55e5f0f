"""Nest -> loops: merged dimensions, work units, vector lanes.

1. Dimensions of extent 1 vanish; neighbours that every access walks as one merge (nest_shape).
2. Nests with reductions keep one accumulator per lane of the last dimension, in chunks.
3. Transposed copies become tiles that go through registers (nest_tiles).
4. Outer dimensions (or pieces of one) become work units of a few microseconds (nest_units).
5. A partial last channel block is computed whole where that only touches padded lanes.
"""

from __future__ import annotations

from builder_host.codegen.loop_nest import Section
from builder_host.codegen.nest import Nest
from builder_host.codegen.nest_shape import (
    chunked,
    drop_harmless_bound,
    has_state,
    merged_neighbours,
    without_unit_dims,
)
from builder_host.codegen.nest_tiles import tiled
from builder_host.codegen.nest_units import units


def schedule(nest: Nest, vector_elems: int) -> list[Section]:
    """Loops of one nest; none when it has nothing to compute.

    Args:
        nest: the computation.
        vector_elems: FLOAT32 lanes of the target; the side of transposed tiles.
    """
    if any(var.extent == 0 for var in nest.dims):
        return []
    nest = drop_harmless_bound(without_unit_dims(nest))
    parts = tiled(nest, vector_elems)
    if parts is not None:
        found: list[Section] = []
        for part in parts:
            found.extend([part] if isinstance(part, Section) else schedule(part, vector_elems))
        return found
    nest = merged_neighbours(nest)
    if nest.is_vector and has_state(nest):
        nest = chunked(nest)
    return [units(nest)]
