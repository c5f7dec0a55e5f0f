"""`add_*` methods that compute without windows: normalisation, pointwise, reductions, products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from builder_host.errors import NetworkError
from builder_host.expressions import Expr
from builder_host.network.api import NetworkDoor, positive_axis
from builder_host.network.layers.activation import ActivationParams
from builder_host.network.layers.elementwise import ElementwiseParams
from builder_host.network.layers.lrn import LrnParams
from builder_host.network.layers.matrix_multiply import MatrixMultiplyParams
from builder_host.network.layers.parametric_relu import ParametricReluParams
from builder_host.network.layers.pointwise import PointwiseParams
from builder_host.network.layers.reduce import ReduceParams
from builder_host.network.layers.scale import ScaleParams
from builder_host.network.layers.select import SelectParams
from builder_host.network.layers.softmax import SoftmaxParams
from builder_host.network.layers.unary import UnaryParams
from planformat.datatypes import DataType

if TYPE_CHECKING:
    from builder_host.network.network import Layer, Tensor

Array = npt.NDArray[Any]
Extents = int | Sequence[int]


class ComputeMethods(NetworkDoor):
    """Part of `Network`."""

    def add_activation(
        self,
        x: Tensor,
        function: str,
        *,
        alpha: float | None = None,
        beta: float | None = None,
        name: str = "",
    ) -> Layer:
        """One of layers.activation.FUNCTIONS; alpha and beta None: the function's own defaults.

        Args:
            x: input.
            function: its name.
            alpha: first parameter.
            beta: second parameter.
            name: of the layer.
        """
        return self.add_layer("activation", ActivationParams(function, alpha, beta), [x], name)

    def add_parametric_relu(self, x: Tensor, slope: Array | Tensor, *, name: str = "") -> Layer:
        """X where it is not negative, else slope * x; slope broadcasts to x.

        Args:
            x: input.
            slope: tensor or array.
            name: of the layer.
        """
        operand = self._operand(slope, x, f"{name or 'parametric_relu'}.slope")
        return self.add_layer("parametric_relu", ParametricReluParams(), [x, operand], name)

    def add_lrn(
        self,
        x: Tensor,
        size: int,
        alpha: float,
        beta: float,
        k: float,
        *,
        region: Literal["across", "within"] = "across",
        name: str = "",
    ) -> Layer:
        """X / (k + alpha / n * sum of x^2)^beta; n = size, or size^2 within channels.

        Args:
            x: input.
            size: of the window.
            alpha: factor of the sum.
            beta: exponent.
            k: what is added to the sum.
            region: `across` channels, or `within` each.
            name: of the layer.
        """
        return self.add_layer("lrn", LrnParams(size, alpha, beta, k, region), [x], name)

    def add_scale(
        self,
        x: Tensor,
        mode: Literal["uniform", "channel", "elementwise"],
        shift: Array | Tensor | float | None = None,
        scale: Array | Tensor | float | None = None,
        power: Array | Tensor | float | None = None,
        *,
        channel_axis: int = 1,
        name: str = "",
    ) -> Layer:
        """(x * scale + shift) ^ power; what is None is left out.

        Args:
            x: input.
            mode: the coefficients are one value, one per channel, or shaped like x (batch of 1
                allowed).
            shift: array with so many elements or one, or a tensor that broadcasts to x.
            scale: as shift.
            power: as shift.
            channel_axis: axis of the channels.
            name: of the layer.
        """
        rank = x.type.rank
        axis = positive_axis(channel_axis, rank)
        inputs = [x]
        for value, what in ((shift, "shift"), (scale, "scale"), (power, "power")):
            if value is None:
                continue
            label = f"{name or 'scale'}.{what}"
            if isinstance(value, float | int | np.ndarray | np.generic):
                array = np.asarray(value)
                if array.dtype.kind in "iu" and x.dtype.is_float:
                    array = array.astype(np.float64)
                shape = {
                    "uniform": (1,) * rank,
                    "channel": tuple(d if i == axis else 1 for i, d in enumerate(x.shape)),
                    "elementwise": x.shape if array.size == x.type.num_elems else (1, *x.shape[1:]),
                }.get(mode)
                if shape is None:
                    raise NetworkError(f"mode '{mode}' is none of uniform, channel, elementwise")
                if array.size == 1:
                    shape = (1,) * rank
                inputs.append(self._operand(array, x, label, shape))
            else:
                inputs.append(self._operand(value, x, label))
        params = ScaleParams(shift is not None, scale is not None, power is not None)
        return self.add_layer("scale", params, inputs, name)

    def add_softmax(self, x: Tensor, axis: int = 1, *, log: bool = False, name: str = "") -> Layer:
        """Softmax over one axis (default: channels), or its logarithm.

        Args:
            x: input.
            axis: which dimension sums to 1.
            log: whether the logarithm is given.
            name: of the layer.
        """
        params = SoftmaxParams(positive_axis(axis, x.type.rank), log)
        return self.add_layer("softmax", params, [x], name)

    def add_ragged_softmax(self, x: Tensor, bounds: Tensor | Array, *, name: str = "") -> Layer:
        """Softmax over the first elements of each row of the last dimension; the rest become 0.

        Args:
            x: [..., S].
            bounds: INT32 or INT64 [..., 1], how many elements of each row take part; a row without
                any becomes 0.
            name: of the layers.

        Returns:
            The last layer.

        Raises:
            NetworkError: the bounds are no integers, or not one for each row.
        """
        base = name or "ragged_softmax"
        counts = self._operand(bounds, x, f"{base}.bounds")
        wanted = (*x.shape[:-1], 1)
        if not x.type.rank or counts.shape != wanted:
            raise NetworkError(
                f"'{base}': bounds have shape {counts.shape}, x of shape {x.shape} needs {wanted}"
            )
        if counts.dtype not in (DataType.INT32, DataType.INT64):
            raise NetworkError(
                f"'{base}': bounds are {counts.dtype.text}, must be INT32 or INT64; cast them"
            )
        dtype = np.int32 if counts.dtype is DataType.INT32 else np.int64
        places = np.arange(x.shape[-1], dtype=dtype).reshape((1,) * (x.type.rank - 1) + (-1,))
        index = self._operand(places, x, f"{base}.places")
        inside = self.add_elementwise(index, counts, "lt", name=f"{base}.inside").output
        ones = (1,) * x.type.rank
        # A row without elements is NaN in between; nothing of it is selected afterwards.
        nothing = self._operand(np.full(ones, -np.inf), x, f"{base}.nothing")
        kept = self.add_select(inside, x, nothing, name=f"{base}.kept").output
        y = self.add_softmax(kept, -1, name=f"{base}.softmax").output
        zero = self._operand(np.zeros(ones), x, f"{base}.zero")
        return self.add_select(inside, y, zero, name=base)

    def add_elementwise(self, a: Tensor, b: Tensor | Array, op: str, *, name: str = "") -> Layer:
        """One of expressions.BINARY_OPS on numpy-broadcast tensors.

        Args:
            a: left side.
            b: right side: a tensor, or an array, which becomes a constant.
            op: its name, `add` for instance.
            name: of the layer.
        """
        other = self._operand(b, a, f"{name or op}.operand")
        return self.add_layer("elementwise", ElementwiseParams(op), [a, other], name)

    def add_unary(self, x: Tensor, op: str, *, name: str = "") -> Layer:
        """One of expressions.UNARY_OPS.

        Args:
            x: input.
            op: its name, `exp` for instance.
            name: of the layer.
        """
        return self.add_layer("unary", UnaryParams(op), [x], name)

    def add_pointwise(
        self,
        expr: Expr,
        inputs: Sequence[Tensor],
        *,
        dtype: DataType | None = None,
        name: str = "",
    ) -> Layer:
        """Any scalar expression over numpy-broadcast inputs.

        Args:
            expr: over `Input(0)`, `Input(1)` ... (`builder_host.expressions`).
            inputs: its operands.
            dtype: of the result; None: that of the first input.
            name: of the layer.
        """
        return self.add_layer("pointwise", PointwiseParams(expr, dtype), inputs, name)

    def add_select(self, condition: Tensor, a: Tensor, b: Tensor, *, name: str = "") -> Layer:
        """A where condition holds, else b.

        Args:
            condition: BOOL, broadcast.
            a: where it holds.
            b: where it does not.
            name: of the layer.
        """
        return self.add_layer("select", SelectParams(), [condition, a, b], name)

    def add_reduce(
        self, x: Tensor, op: str, axes: Sequence[int], *, keep_dims: bool = True, name: str = ""
    ) -> Layer:
        """One of layers.reduce.REDUCE_OPS over axes.

        Args:
            x: input.
            op: its name, `mean` for instance.
            axes: dimensions that it runs over.
            keep_dims: whether they stay, with extent 1.
            name: of the layer.
        """
        where = tuple(sorted(positive_axis(a, x.type.rank) for a in axes))
        return self.add_layer("reduce", ReduceParams(op, where, keep_dims), [x], name)

    def add_matrix_multiply(
        self,
        a: Tensor,
        b: Tensor | Array,
        *,
        transpose_a: bool = False,
        transpose_b: bool = False,
        name: str = "",
    ) -> Layer:
        """Batched product over the last two dimensions; both sides have rank 2 or more.

        Args:
            a: left side.
            b: right side: a tensor, or an array, which becomes a constant.
            transpose_a: whether the last two dimensions of a change places.
            transpose_b: the same of b.
            name: of the layer.
        """
        other = self._operand(b, a, f"{name or 'matrix_multiply'}.weights")
        params = MatrixMultiplyParams(transpose_a, transpose_b)
        return self.add_layer("matrix_multiply", params, [a, other], name)
