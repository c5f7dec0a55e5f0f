"""Weights of a network under construction by the names that refitting uses, and others for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from builder_host.network.network import Network
from builder_host.tensorrt import layers as kinds
from builder_host.tensorrt.build_enums import WeightsRole
from builder_host.tensorrt.imported import Array, Place, same_form, weight_places
from builder_host.tensorrt.layers.base import ILayer, optional_weights

if TYPE_CHECKING:
    from builder_host.tensorrt.network import INetworkDefinition

_FILTER = (("kernel", WeightsRole.KERNEL), ("bias", WeightsRole.BIAS))
_ROLES: Mapping[type[ILayer], tuple[tuple[str, WeightsRole], ...]] = {
    kinds.IConvolutionLayer: _FILTER,
    kinds.IDeconvolutionLayer: _FILTER,
    kinds.IFullyConnectedLayer: _FILTER,
    kinds.IScaleLayer: (("shift", WeightsRole.SHIFT), ("scale", WeightsRole.SCALE)),
    kinds.IConstantLayer: (("weights", WeightsRole.CONSTANT),),
}


class NetworkWeights:
    """What refitting may replace in a network.

    Attributes:
        places: by layer and role, the key of the weights.
        values: by key, the weights that the network was made with.
    """

    def __init__(self, network: INetworkDefinition) -> None:
        """Look through a network. Raises BuilderError when its model cannot be imported again."""
        self._network = network
        self._attributes: dict[Place, tuple[ILayer, str]] = {}
        self.places: dict[Place, Place | str] = {}
        self.values: dict[Place | str, Array] = {}
        model = network.imported_model
        if model is not None:
            imported = network.import_again()
            self.values.update(model.weights(imported))
            known = weight_places(imported).items()
            self.places.update({place: name for place, name in known if name in self.values})
        for layer in network:
            for attribute, role in _ROLES.get(type(layer), ()):
                values = optional_weights(getattr(layer, attribute))
                if values is not None:
                    place = layer.name, role
                    self._attributes[place] = layer, attribute
                    self.places[place] = place
                    self.values[place] = values

    def networks(
        self, shapes: Mapping[str, Mapping[str, tuple[int, ...]]], others: Mapping[Any, Any]
    ) -> dict[str, Network]:
        """The network for each profile, with other weights.

        Args:
            shapes: by profile, of the inputs, with the batch.
            others: by key; those that are not named stay.

        Raises:
            BuilderError: weights of another size or kind.
        """
        is_implicit = self._network.has_implicit_batch_dimension
        with self._replaced(others):
            return {
                profile: self._network.emit(next(iter(own.values()))[0])[0]
                if is_implicit
                else self._network.emit(None, dict(own))[0]
                for profile, own in shapes.items()
            }

    @contextlib.contextmanager
    def _replaced(self, others: Mapping[Any, Any]) -> Iterator[None]:
        made = {key: same_form(given, self.values[key], text(key)) for key, given in others.items()}
        model = self._network.imported_model
        kept = []
        try:
            if model is not None:
                model.replaced = {key: made[key] for key in made if isinstance(key, str)}
            for key, values in made.items():
                if not isinstance(key, str):
                    layer, attribute = self._attributes[key]
                    kept.append((layer, attribute, getattr(layer, attribute)))
                    setattr(layer, attribute, values)
            yield
        finally:
            if model is not None:
                model.replaced = {}
            for layer, attribute, old in kept:
                setattr(layer, attribute, old)


def text(key: Place | str) -> str:
    """Weights as messages name them."""
    return f"weights '{key}'" if isinstance(key, str) else f"'{key[0]}' {key[1].name}"
