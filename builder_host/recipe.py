"""The part of a build's options that a plan states, so that other weights can be put in later."""

from __future__ import annotations

from collections.abc import Mapping

from builder_host.calibration.table import CalibrationTable
from builder_host.config import BuilderConfig
from builder_host.network.network import Network
from builder_host.network.origin import NetworkOrigin
from planformat.recipe import BuildRecipe

_HEADER = "recorded"


def recipe_of(
    network: Network, config: BuilderConfig, hardware: Mapping[str, int | float]
) -> BuildRecipe:
    """What a plan says about its build.

    Args:
        network: as imported, of the first profile.
        config: of the build.
        hardware: facts of the target's board file.
    """
    table = config.table()
    origin = network.origin or NetworkOrigin()
    return BuildRecipe(
        files=origin.files,
        outputs=origin.outputs,
        image_order=origin.image_order,
        precision=config.precision,
        layer_rules=config.layer_precision,
        tensor_rules=config.tensor_precision,
        scales=dict(table.scales) if table is not None else {},
        largest=dict(table.largest) if table is not None else {},
        hardware=dict(hardware),
    )


def config_of(recipe: BuildRecipe, *, is_checked: bool) -> BuilderConfig:
    """Options that make the same layers of the same network again. Raises BuilderError."""
    has_table = bool(recipe.scales or recipe.largest)
    return BuilderConfig(
        measure="none",
        precision=recipe.precision,
        layer_precision=recipe.layer_rules,
        tensor_precision=recipe.tensor_rules,
        calibration=(
            CalibrationTable(_HEADER, recipe.scales, recipe.largest) if has_table else None
        ),
        is_checked=is_checked,
    )
