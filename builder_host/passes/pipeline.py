"""The passes in order: network as imported -> fused network."""

from __future__ import annotations

from collections.abc import Callable

from builder_host.network.editing import CheckedLayers, check_network
from builder_host.network.network import Network
from builder_host.passes import (
    expand_plugins,
    fold_batch_norm_scale,
    fold_constants,
    fold_padding,
    fold_requantise,
    fuse_epilogue,
    fuse_fully_connected,
    fuse_pointwise,
    fuse_quantised,
    merge_sibling_convolutions,
    reduce_to_pooling,
    remove_dead_layers,
    remove_identities,
    shuffle_to_slice,
    split_recurrent,
    to_pointwise,
    widen_half,
    widen_rank3,
)

Pass = Callable[[Network], int]
Observer = Callable[[int, str, Network], None]

# Forced orders, each with its reason:
#  expand_plugins first: a plugin that is an expression is then a layer that every pass knows.
#  fuse_quantised before fold_constants: dequantised weights would become floats.
#  fold_constants next: shapes, weights and scales that the model computes become constants, which
#    every later pattern looks for.
#  widen_half before anything that makes constants: all of them are then float32.
#  split_recurrent before fuse_fully_connected: it makes products with constant matrices.
#  fuse_fully_connected, reduce_to_pooling before to_pointwise .. fuse_epilogue: they make the hot
#    layers that the rest folds into.
#  to_pointwise before widen_rank3, folding and fusing: those know one pointwise kind only.
#  widen_rank3 before remove_identities: the reshapes that it leaves between layers cancel there.
#  shuffle_to_slice after remove_identities: its chains hold no identities.
#  fold_padding after remove_identities: nothing stands between pad and its reader any more.
#  fold_batch_norm_scale before fuse_pointwise: a scale fused with an activation is not affine;
#    after fold_padding: a shift before a convolution is folded only where nothing is padded.
#  fuse_pointwise before fuse_epilogue: one fused layer is moved instead of a chain whose middle
#    might not qualify.
#  fold_requantise after fuse_epilogue: scales and rounding then stand in one expression.
#  merge_sibling_convolutions after fuse_epilogue: siblings must agree in their whole epilogue.
#  fold_constants, remove_dead_layers last: what the others left over.
PASSES: tuple[tuple[str, Pass], ...] = (
    ("expand_plugins", expand_plugins.run),
    ("remove_dead_layers", remove_dead_layers.run),
    ("fuse_quantised", fuse_quantised.run),
    ("fold_constants", fold_constants.run),
    ("widen_half", widen_half.run),
    ("split_recurrent", split_recurrent.run),
    ("fuse_fully_connected", fuse_fully_connected.run),
    ("reduce_to_pooling", reduce_to_pooling.run),
    ("to_pointwise", to_pointwise.run),
    ("widen_rank3", widen_rank3.run),
    ("remove_identities", remove_identities.run),
    ("shuffle_to_slice", shuffle_to_slice.run),
    ("fold_padding", fold_padding.run),
    ("fold_batch_norm_scale", fold_batch_norm_scale.run),
    ("fuse_pointwise", fuse_pointwise.run),
    ("fuse_epilogue", fuse_epilogue.run),
    ("fold_requantise", fold_requantise.run),
    ("merge_sibling_convolutions", merge_sibling_convolutions.run),
    ("remove_identities", remove_identities.run),
    ("fold_constants", fold_constants.run),
    ("remove_dead_layers", remove_dead_layers.run),
)


def run_passes(network: Network, observer: Observer | None = None) -> dict[str, int]:
    """Run all passes on a network in place.

    Args:
        network: is changed.
        observer: called with index, name and network: first (0, "imported", network), then after
            each pass.

    Returns:
        Number of changes by each pass, `NN-name` as key.

    Raises:
        NetworkError: a pass left a network that breaks the rules.
    """
    if observer is not None:
        observer(0, "imported", network)
    counts: dict[str, int] = {}
    checked: CheckedLayers = {}
    for index, (name, run) in enumerate(PASSES, start=1):
        counts[f"{index:02d}-{name}"] = run(network)
        check_network(network, checked)
        if observer is not None:
            observer(index, name, network)
    return counts
