"""What convolution families have in common whose tactics are tiles of one launch over 32 of k."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from builder_host.codegen.template import fill
from builder_host.kernels.cuda_conv_simt.epilogue import (
    epilogue_parameters,
    grouped_weights,
    pack_operands,
)
from builder_host.kernels.cuda_conv_simt.geometry import Convolution, convolution_of
from builder_host.kernels.family import Array, GridLaunch, Problem, Program, Tactic, symbol_for
from builder_host.targets.cuda import CudaTarget

TILED_SOURCE = Path(__file__).read_text()
TILE_K = 32
_MAX_GRID = 65535


@dataclass(frozen=True, slots=True)
class Tile(ABC):
    """What a block computes; the fields are the parameters of the tactic."""

    pixels: int
    filters: int

    @property
    @abstractmethod
    def threads(self) -> int:
        """Threads of a block."""

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a block."""
        return 0

    def padded_filters(self, conv: Convolution) -> int:
        """Filters of a group with those that fill its last tile."""
        return -(-conv.group_filters // self.filters) * self.filters

    def grid(self, conv: Convolution) -> tuple[int, int, int]:
        """Blocks: one, tiles of filters, tiles of pixels."""
        tiles = conv.groups * self.padded_filters(conv) // self.filters
        return (1, tiles, -(-conv.pixels // self.pixels))


TileT = TypeVar("TileT", bound=Tile)


class TiledConvolution(ABC, Generic[TileT]):
    """A family of one template. Its template hash covers `TILED_SOURCE` and its own module.

    Attributes:
        name, template_hash: of the family.
        stem: beginning of its symbols.
        template: source with its parameters, includes resolved.
        tile_type: class of its tiles.
        shapes: fields of the tiles that are tried.
        is_integer: products of 8-bit tensors, see `convolution_of`.
        packed_dtype: of the packed weights.
        run_terms: k values of one filter that lie together in them.
    """

    device_kind = "cuda"
    name: str
    template_hash: str
    stem: str
    template: str
    tile_type: type[TileT]
    shapes: tuple[tuple[int, ...], ...]
    is_integer: bool
    packed_dtype: npt.DTypeLike
    run_terms: int

    @abstractmethod
    def fits(self, conv: Convolution, target: CudaTarget) -> bool:
        """Whether the template can compute a convolution, whatever the tile."""

    @abstractmethod
    def is_launchable(self, tile: TileT, target: CudaTarget) -> bool:
        """Whether the target has what a block of the tile takes."""

    @abstractmethod
    def tile_us(self, tile: TileT, conv: Convolution, target: CudaTarget) -> float:
        """Estimated time of a tile in microseconds."""

    @abstractmethod
    def tile_parameters(self, tile: TileT) -> dict[str, int | str]:
        """Values of those parameters that only this template has."""

    def applies(self, problem: Problem, target: Any) -> bool:
        """What `fits` says, where a tile can be launched."""
        return self._convolution(problem, target) is not None

    def estimate_us(self, problem: Problem, target: Any) -> float:
        """The best tile's estimate."""
        conv = self._require(problem, target)
        return min(self.tile_us(tile, conv, target) for tile in self._tiles(conv, target))

    def tactics(self, problem: Problem, target: Any) -> Sequence[Tactic]:
        """Tiles by the estimate."""
        conv = self._require(problem, target)
        tiles = sorted(self._tiles(conv, target), key=lambda tile: self.tile_us(tile, conv, target))
        return [Tactic(self.name, tuple(sorted(asdict(tile).items()))) for tile in tiles]

    def generate(self, problem: Problem, tactic: Tactic, target: Any) -> Program:
        """One launch."""
        conv, tile = self._require(problem, target), self._tile(tactic)
        symbol = symbol_for(
            f"{self.stem}_{tile.pixels}x{tile.filters}x{TILE_K}_sm{target.sm}",
            *(self.template_hash, problem.text(), tactic.text),
        )
        parameters: dict[str, int | str] = {
            **conv.parameters_of(self.template),
            **epilogue_parameters(conv),
            "SYMBOL": symbol,
            "TILE_PIXELS": tile.pixels,
            "TILE_FILTERS": tile.filters,
            **self.tile_parameters(tile),
        }
        launch = GridLaunch(
            symbol,
            tile.grid(conv),
            (tile.threads, 1, 1),
            shared_memory_bytes=tile.shared_bytes,
            is_dependent=target.has_dependent_launch,
        )
        return Program(fill(self.template, parameters), (launch,))

    def pack(
        self, problem: Problem, tactic: Tactic, target: Any, constants: Sequence[Array | None]
    ) -> list[Array | None]:
        """Weights as [group, filter tile, run][filter][terms of a run]; channel vectors as floats.

        The terms of a filter are padded with zeros to whole steps of k.
        """
        conv, tile = self._require(problem, target), self._tile(tactic)
        weights = constants[1]
        if weights is None:
            raise ValueError(f"{self.name}: the weights of {problem.text()} are not given")
        grouped = grouped_weights(problem, conv, weights)
        padded = tile.padded_filters(conv)
        terms = -(-conv.num_terms // TILE_K) * TILE_K
        whole = np.zeros((conv.groups, padded, terms), self.packed_dtype)
        whole[:, : conv.group_filters, : conv.num_terms] = grouped.reshape(
            conv.groups, conv.group_filters, conv.num_terms
        )
        tiles = whole.reshape(conv.groups, padded // tile.filters, tile.filters, -1, self.run_terms)
        ordered = np.ascontiguousarray(tiles.transpose(0, 1, 3, 2, 4)).reshape(-1)
        return [None, ordered, *pack_operands(conv, constants, padded)]

    def _convolution(self, problem: Problem, target: Any) -> Convolution | None:
        conv = convolution_of(problem, target, integers=self.is_integer)
        if conv is None or not self.fits(conv, target) or not self._tiles(conv, target):
            return None
        return conv

    def _require(self, problem: Problem, target: Any) -> Convolution:
        conv = self._convolution(problem, target)
        if conv is None:
            raise ValueError(f"{self.name} does not apply to {problem.text()}")
        return conv

    def _tiles(self, conv: Convolution, target: CudaTarget) -> list[TileT]:
        return [
            tile
            for tile in (self.tile_type(*shape) for shape in self.shapes)
            if max(tile.grid(conv)) <= _MAX_GRID and self.is_launchable(tile, target)
        ]

    def _tile(self, tactic: Tactic) -> TileT:
        values = {name: int(value) for name, value in tactic.values.items()}
        return self.tile_type(**values)
