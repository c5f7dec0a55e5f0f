"""Normalisations over a part of each image, made of reductions and elementwise layers."""

from __future__ import annotations

from collections.abc import Sequence

from builder_host.expressions import Binary, Const, Input, Select
from builder_host.importers.onnx.node import Node
from builder_host.importers.onnx.registry import operator
from builder_host.network.network import Tensor
from planformat.datatypes import DataType


@operator("InstanceNormalization", since=(1, 6, 22))
def instance_normalization(node: Node) -> Tensor:
    """Each channel of each image over its space."""
    x = node.input(0)
    if x.type.rank < 3:
        node.fail(f"input {x.type} needs batch, channels and space")
    y = _standardized(node, x, range(2, x.type.rank), node.attr_float("epsilon", 1e-5))[0]
    wide = (x.shape[1], *(1,) * (x.type.rank - 2))
    scale, bias = (node.reshape(node.input(i), wide) for i in (1, 2))
    return node.binary("add", node.binary("mul", y, scale), bias)


@operator("GroupNormalization", since=(18, 21))
def group_normalization(node: Node) -> Tensor:
    """Groups of channels; scale and bias per group (18) or per channel (21)."""
    node.skip_attrs("stash_type")
    x = node.input(0)
    groups = node.attr_int("num_groups", 0)
    if x.type.rank < 2 or groups < 1 or x.shape[1] % groups:
        node.fail(f"{x.type} does not divide into {groups} groups of channels")
    channels = x.shape[1]
    grouped = node.reshape(x, (x.shape[0], groups, x.type.num_elems // (x.shape[0] * groups)))
    y = _standardized(node, grouped, (2,), node.attr_float("epsilon", 1e-5))[0]
    if node.version < 21:
        scale, bias = (node.reshape(node.input(i), (groups, 1)) for i in (1, 2))
        return node.reshape(node.binary("add", node.binary("mul", y, scale), bias), x.shape)
    wide = (channels, *(1,) * (x.type.rank - 2))
    scale, bias = (node.reshape(node.input(i), wide) for i in (1, 2))
    return node.binary("add", node.binary("mul", node.reshape(y, x.shape), scale), bias)


@operator("LayerNormalization", since=(17,))
def layer_normalization(node: Node) -> list[Tensor]:
    """All dimensions from `axis` on; offers mean and 1/deviation as well."""
    node.skip_attrs("stash_type")
    x = node.input(0)
    axis = node.axis(node.attr_int("axis", -1), x.type.rank)
    y, mean, inverse = _standardized(
        node, x, range(axis, x.type.rank), node.attr_float("epsilon", 1e-5)
    )
    y = node.binary("mul", y, node.input(1))
    bias = node.optional(2)
    return [y if bias is None else node.binary("add", y, bias), mean, inverse]


@operator("RMSNormalization", since=(23,))
def rms_normalization(node: Node) -> Tensor:
    """All dimensions from `axis` on, without a mean."""
    node.skip_attrs("stash_type")
    x = node.input(0)
    axis = node.axis(node.attr_int("axis", -1), x.type.rank)
    square = node.reduce("mean", node.binary("mul", x, x), range(axis, x.type.rank))
    total = node.binary("add", square, node.attr_float("epsilon", 1e-5))
    y = node.binary("div", x, node.unary("sqrt", total))
    scale = node.input(1)
    return node.cast(node.binary("mul", node.cast(y, scale.dtype), scale), scale.dtype)


@operator("MeanVarianceNormalization", since=(9, 13))
def mean_variance_normalization(node: Node) -> Tensor:
    """Over batch and space by default."""
    x = node.input(0)
    stated = node.attr_ints("axes")
    axes = node.axes((0, 2, 3) if stated is None else stated, x.type.rank)
    centred = node.binary("sub", x, node.reduce("mean", x, axes))
    variance = node.reduce("mean", node.binary("mul", centred, centred), axes)
    deviation = node.binary("add", node.unary("sqrt", variance), 1e-9)
    return node.binary("div", centred, deviation)


@operator("LpNormalization", since=(1, 22))
def lp_normalization(node: Node) -> Tensor:
    """Divided by the 1- or 2-norm along one axis; zero where the norm is zero."""
    x = node.input(0)
    p = node.attr_int("p", 2)
    if p not in (1, 2):
        node.fail(f"attribute 'p' is {p}; 1 and 2 are supported")
    axis = node.axis(node.attr_int("axis", -1), x.type.rank)
    norm = node.reduce("l1" if p == 1 else "l2", x, (axis,))
    is_zero = Binary("eq", Input(1), Const(0.0))
    quotient = Binary("div", Input(0), Select(is_zero, Const(1.0), Input(1)))
    return node.pointwise(Select(is_zero, Const(0.0), quotient), x, norm)


def _standardized(
    node: Node, x: Tensor, axes: Sequence[int], epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(x - mean) / sqrt(variance + epsilon), mean, and 1 / sqrt(variance + epsilon)."""
    if not x.dtype.is_float or x.dtype is DataType.BOOL:
        node.fail(f"floating-point values are needed, got {x.type}")
    mean = node.reduce("mean", x, axes)
    centred = node.binary("sub", x, mean)
    variance = node.reduce("mean", node.binary("mul", centred, centred), axes)
    inverse = node.unary("rsqrt", node.binary("add", variance, epsilon))
    return node.binary("mul", centred, inverse), mean, inverse
