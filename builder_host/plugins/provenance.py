"""What a plan says about the plugins that were compiled into it."""

from __future__ import annotations

import json
from collections.abc import Iterable

from builder_host.network.network import Network
from builder_host.plugins.plugin import checked_attributes

_MAX_FIELDS = 100  # of the plan's provenance; further ones are counted


def plugin_provenance(networks: Iterable[Network]) -> dict[str, str]:
    """One field per distinct plugin: `plugin 1 Reorg/1` -> its attributes as JSON.

    Args:
        networks: as imported, one per profile.
    """
    found: dict[str, str] = {}
    for network in networks:
        for layer in network.layers:
            if layer.kind == "plugin":
                plugin = layer.params.plugin
                text = json.dumps(checked_attributes(plugin), sort_keys=True)
                found.setdefault(layer.params.identity, f"{plugin.name}/{plugin.version}\0{text}")
    fields = {}
    for number, stated in enumerate(list(found.values())[:_MAX_FIELDS], start=1):
        name, _, attributes = stated.partition("\0")
        fields[f"plugin {number} {name}"] = attributes
    if len(found) > _MAX_FIELDS:
        fields["plugins beyond these"] = str(len(found) - _MAX_FIELDS)
    return fields
