"""Where layers take their weights from: a caffemodel, or random numbers when there is none."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from builder_host.importers.caffe.problem import LayerProblem, check_constant_size
from builder_host.importers.caffe.weights import CaffeModel
from builder_host.importers.spelling import nearest

Array = npt.NDArray[Any]

Fill = Literal["weights", "bias", "scale", "mean", "variance", "one", "slope"]


@dataclass(frozen=True, slots=True)
class BlobSpec:
    """One blob that a layer type has.

    Attributes:
        role: word for messages and constant names, e.g. `weights`.
        shape: as BVLC Caffe makes it.
        fill: kind of random values when there is no caffemodel.
        fan_in: inputs that one output sums up; scales random weights.
    """

    role: str
    shape: tuple[int, ...]
    fill: Fill
    fan_in: int = 1


class WeightSource:
    """Float32 arrays of a layer by its name."""

    def __init__(self, model: CaffeModel | None, random_seed: int) -> None:
        """Take weights from `model`, or make them from `random_seed` when it is None."""
        self._model = model
        self._seed = random_seed

    def num_blobs(self, layer: str) -> int | None:
        """Number of blobs that the file holds for a layer; None when there is no file."""
        return None if self._model is None else len(self._model.blobs.get(layer, ()))

    def stored(self, layer: str) -> tuple[Array, ...]:
        """Blobs of a layer as the file holds them; none without a file."""
        return () if self._model is None else self._model.blobs.get(layer, ())

    def arrays(
        self, layer: str, specs: Sequence[BlobSpec], shared_names: Sequence[str] = ()
    ) -> list[Array]:
        """One array per spec, in the shape of the spec.

        Args:
            layer: name by which the file knows the layer.
            specs: blobs of the layer in Caffe's order.
            shared_names: `param { name }` per blob; equal names give equal random values.

        Raises:
            LayerProblem: missing layer, wrong number or shape of blobs, values not finite.
        """
        if self._model is None:
            names = [*shared_names, *[""] * len(specs)]
            for spec in specs:
                check_constant_size(spec.role, spec.shape)
            return [
                self._random(names[index] or f"{layer}\0{index}", spec)
                for index, spec in enumerate(specs)
            ]
        found = self._model.blobs.get(layer)
        if found is None:
            raise LayerProblem(
                f"{self._model.path} has no weights for layer '{layer}'"
                f"{nearest(layer, self._model.blobs)}; is it the file of this network?"
            )
        if len(found) != len(specs):
            wanted = ", ".join(f"{s.role} {_text(s.shape)}" for s in specs)
            have = ", ".join(_text(b.shape) for b in found)
            raise LayerProblem(
                f"{self._model.path} has {len(found)} blobs ({have}) for this layer, "
                f"the prototxt asks for {len(specs)} ({wanted}); use the matching pair of files"
            )
        return [
            self._checked(index, spec, blob)
            for index, (spec, blob) in enumerate(zip(specs, found, strict=True))
        ]

    def _checked(self, index: int, spec: BlobSpec, blob: Array) -> Array:
        path = self._model.path if self._model else ""
        if _without_leading_ones(blob.shape) != _without_leading_ones(spec.shape):
            raise LayerProblem(
                f"{path} has blob {index} ({spec.role}) of shape {_text(blob.shape)}, "
                f"the prototxt makes it {_text(spec.shape)}; use the matching pair of files"
            )
        with np.errstate(over="ignore"):
            values = blob.astype(np.float32, copy=False).reshape(spec.shape)
        bad = int(values.size - np.count_nonzero(np.isfinite(values)))
        if bad:
            raise LayerProblem(
                f"{path} has {bad} of {values.size} values in blob {index} ({spec.role}) "
                "that are not finite in float32; the training diverged or the file is damaged"
            )
        return values

    def _random(self, key: str, spec: BlobSpec) -> Array:
        """Values that depend on seed, key and spec only: fan-based, so that nothing overflows."""
        number = zlib.crc32(f"{key}\0{spec.role}".encode())
        generator = np.random.Generator(np.random.PCG64([self._seed, number]))
        if spec.fill == "one":
            values = np.ones(spec.shape)
        elif spec.fill in ("scale", "variance"):
            values = generator.uniform(0.9, 1.1, spec.shape)
        elif spec.fill == "slope":
            values = generator.uniform(0.1, 0.3, spec.shape)
        else:
            # He et al. 2015 (arXiv:1502.01852) for weights; biases and means small beside them.
            sigma = math.sqrt(2.0 / max(1, spec.fan_in)) if spec.fill == "weights" else 0.01
            values = generator.standard_normal(spec.shape) * sigma
        return np.asarray(values, dtype=np.float32)


def _without_leading_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Legacy blobs have four dimensions, the first ones 1."""
    first = next((i for i, d in enumerate(shape) if d != 1), len(shape))
    return shape[first:]


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
