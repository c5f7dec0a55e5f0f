"""`add_*` methods around positions known at run time: gathers, scatters, samples, selections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy.typing as npt

from builder_host.network.api import NetworkDoor, positive_axis
from builder_host.network.layers.box_selection import BoxSelectionParams
from builder_host.network.layers.cumulative import CumulativeParams
from builder_host.network.layers.gather_elements import GatherElementsParams
from builder_host.network.layers.gather_nd import GatherNdParams
from builder_host.network.layers.grid_sample import GridSampleParams
from builder_host.network.layers.non_zero import NonZeroParams
from builder_host.network.layers.reverse_sequence import ReverseSequenceParams
from builder_host.network.layers.roi_align import RoiAlignParams
from builder_host.network.layers.scatter_elements import ScatterElementsParams
from builder_host.network.layers.scatter_nd import ScatterNdParams

if TYPE_CHECKING:
    from builder_host.network.network import Layer, Tensor

Array = npt.NDArray[Any]
Reduction = Literal["none", "add", "mul", "max", "min"]


class IndexMethods(NetworkDoor):
    """Part of `Network`. Indices are integers; negative ones count from the end."""

    def add_gather_elements(
        self, data: Tensor, indices: Tensor | Array, axis: int = 0, *, name: str = ""
    ) -> Layer:
        """y[..i..] = data[..indices[..i..]..] along one axis; out of range gives zero.

        Args:
            data: what is read.
            indices: shaped like the result.
            axis: dimension that they count along.
            name: of the layer.
        """
        where = self._operand(indices, data, f"{name or 'gather_elements'}.indices")
        params = GatherElementsParams(positive_axis(axis, data.type.rank))
        return self.add_layer("gather_elements", params, [data, where], name)

    def add_gather_nd(
        self, data: Tensor, indices: Tensor | Array, batch_dims: int = 0, *, name: str = ""
    ) -> Layer:
        """Slices of the data at index tuples (the indices' last dimension).

        Args:
            data: what is read.
            indices: [..., depth].
            batch_dims: leading dimensions that both have in common.
            name: of the layer.
        """
        where = self._operand(indices, data, f"{name or 'gather_nd'}.indices")
        return self.add_layer("gather_nd", GatherNdParams(batch_dims), [data, where], name)

    def add_scatter_elements(
        self,
        data: Tensor,
        indices: Tensor | Array,
        updates: Tensor | Array,
        axis: int = 0,
        *,
        reduction: Reduction = "none",
        name: str = "",
    ) -> Layer:
        """A copy of the data with y[..indices[..i..]..] replaced by or joined with updates.

        Args:
            data: what is copied.
            indices: shaped like the updates.
            updates: new values.
            axis: dimension that the indices count along.
            reduction: how updates join what is there; `none` replaces it.
            name: of the layer.
        """
        params = ScatterElementsParams(positive_axis(axis, data.type.rank), reduction)
        others = self._scattered(data, indices, updates, name or "scatter_elements")
        return self.add_layer("scatter_elements", params, [data, *others], name)

    def add_scatter_nd(
        self,
        data: Tensor,
        indices: Tensor | Array,
        updates: Tensor | Array,
        *,
        reduction: Reduction = "none",
        name: str = "",
    ) -> Layer:
        """A copy of the data with slices at index tuples replaced by or joined with updates.

        Args:
            data: what is copied.
            indices: [..., depth].
            updates: new slices.
            reduction: how updates join what is there; `none` replaces it.
            name: of the layer.
        """
        others = self._scattered(data, indices, updates, name or "scatter_nd")
        return self.add_layer("scatter_nd", ScatterNdParams(reduction), [data, *others], name)

    def _scattered(
        self, data: Tensor, indices: Tensor | Array, updates: Tensor | Array, name: str
    ) -> list[Tensor]:
        return [
            self._operand(indices, data, f"{name}.indices"),
            self._operand(updates, data, f"{name}.updates"),
        ]

    def add_non_zero(self, x: Tensor, max_count: int | None = None, *, name: str = "") -> Layer:
        """INT64 [rank, max_count] coordinates, -1 past the last; default: room for all.

        Args:
            x: input.
            max_count: columns of the result; None: as many as x has elements.
            name: of the layer.
        """
        bound = x.type.num_elems if max_count is None else max_count
        return self.add_layer("non_zero", NonZeroParams(bound), [x], name)

    def add_box_selection(
        self,
        boxes: Tensor,
        scores: Tensor,
        max_count: int,
        *,
        iou_threshold: float = 0.0,
        score_threshold: float | None = None,
        is_centred: bool = False,
        name: str = "",
    ) -> Layer:
        """Non-maximum suppression: INT64 [B,C,max_count] box numbers, best first, then -1.

        Args:
            boxes: [B,N,4]: two corners, or with `is_centred` centre and size.
            scores: [B,C,N].
            max_count: boxes kept per batch and class.
            iou_threshold: a box that overlaps a kept one by more is dropped.
            score_threshold: only higher scores take part; None: all.
            is_centred: see `boxes`.
            name: of the layer.
        """
        params = BoxSelectionParams(max_count, iou_threshold, score_threshold, is_centred)
        return self.add_layer("box_selection", params, [boxes, scores], name)

    def add_cumulative(
        self,
        x: Tensor,
        op: Literal["sum", "product"] = "sum",
        axis: int = -1,
        *,
        exclusive: bool = False,
        reverse: bool = False,
        name: str = "",
    ) -> Layer:
        """Running sum or product along one axis.

        Args:
            x: input.
            op: `sum` or `product`.
            axis: dimension that it runs along.
            exclusive: whether an element leaves itself out.
            reverse: whether it runs from the end.
            name: of the layer.
        """
        params = CumulativeParams(op, positive_axis(axis, x.type.rank), exclusive, reverse)
        return self.add_layer("cumulative", params, [x], name)

    def add_reverse_sequence(
        self,
        x: Tensor,
        lengths: Tensor | Array,
        *,
        batch_axis: int = 1,
        time_axis: int = 0,
        name: str = "",
    ) -> Layer:
        """The first lengths[b] steps of each sequence backwards, the rest unchanged.

        Args:
            x: input.
            lengths: integer [B].
            batch_axis: dimension of the sequences.
            time_axis: dimension of their steps.
            name: of the layer.
        """
        rank = x.type.rank
        params = ReverseSequenceParams(
            positive_axis(batch_axis, rank), positive_axis(time_axis, rank)
        )
        counts = self._operand(lengths, x, f"{name or 'reverse_sequence'}.lengths")
        return self.add_layer("reverse_sequence", params, [x, counts], name)

    def add_grid_sample(
        self,
        x: Tensor,
        grid: Tensor | Array,
        mode: Literal["nearest", "linear", "cubic"] = "linear",
        *,
        padding: Literal["zeros", "border", "reflection"] = "zeros",
        align_corners: bool = False,
        name: str = "",
    ) -> Layer:
        """x[N,C,*S] interpolated at grid[N,*O,len(S)] (-1 to 1, last dimension first).

        Args:
            x: [N,C,*S].
            grid: [N,*O,len(S)].
            mode: `nearest`, `linear` or `cubic`.
            padding: what lies outside: `zeros`, the `border`, or a `reflection`.
            align_corners: whether -1 and 1 are the centres of the outermost elements, else their
                edges.
            name: of the layer.
        """
        where = self._operand(grid, x, f"{name or 'grid_sample'}.grid")
        params = GridSampleParams(mode, padding, align_corners)
        return self.add_layer("grid_sample", params, [x, where], name)

    def add_roi_align(
        self,
        x: Tensor,
        regions: Tensor,
        batch: Tensor | Array,
        output_size: Sequence[int],
        *,
        mode: Literal["average", "max"] = "average",
        sampling_ratio: int = 0,
        spatial_scale: float = 1.0,
        half_pixel: bool = True,
        name: str = "",
    ) -> Layer:
        """Regions [R,4] (x1,y1,x2,y2) of x[N,C,H,W], each of image batch[r], to a fixed size.

        Args:
            x: [N,C,H,W].
            regions: [R,4].
            batch: integer [R].
            output_size: rows and columns of each result.
            mode: how samples of a cell are joined.
            sampling_ratio: samples per cell and dimension; 0: as many as fit.
            spatial_scale: from the regions' unit to elements of x.
            half_pixel: whether coordinates are of centres.
            name: of the layer.
        """
        rows, columns = output_size
        params = RoiAlignParams(mode, (rows, columns), sampling_ratio, spatial_scale, half_pixel)
        numbers = self._operand(batch, x, f"{name or 'roi_align'}.batch")
        return self.add_layer("roi_align", params, [x, regions, numbers], name)
