"""Why one layer cannot be imported; collected into one report per model."""

from __future__ import annotations

import math
from collections.abc import Sequence

# A prototxt of a few bytes can ask for any size; refuse what no machine that builds could hold.
MAX_CONSTANT_ELEMS = 1 << 29


class LayerProblem(Exception):  # noqa: N818 - becomes a line of ImportModelError, never leaves
    """A layer breaks a rule of Caffe or of this importer; the text says what and what to do."""


def check_constant_size(what: str, shape: Sequence[int]) -> None:
    """Raise LayerProblem when a constant of this shape is beyond all reason."""
    count = math.prod(shape)
    if count > MAX_CONSTANT_ELEMS:
        raise LayerProblem(
            f"{what} of shape {'x'.join(map(str, shape))} would have {count} elements, "
            f"over the limit of {MAX_CONSTANT_ELEMS}; correct the sizes"
        )
