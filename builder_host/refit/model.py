"""The model whose weights go into a plan, imported as it was for the plan's build."""

from __future__ import annotations

from pathlib import Path

from builder_host.importers.model_file import import_model_file
from builder_host.network.network import Network
from builder_host.plugins.registry import PluginRegistry
from planformat.plan import Plan
from planformat.recipe import BuildRecipe


def import_for_plan(
    plan: Plan,
    recipe: BuildRecipe,
    model: str | Path,
    weights: str | Path | None = None,
    *,
    plugins: PluginRegistry | None = None,
) -> dict[str, Network]:
    """The model in the shapes of every profile of a plan of one variant, by the profile's name.

    Args:
        plan: gives shapes and names of the inputs.
        recipe: of the plan.
        model: network file.
        weights: caffemodel of a prototxt.
        plugins: as in the build.

    Raises:
        BuilderError: the model cannot be imported.
    """
    return {
        profile.name: import_model_file(
            model,
            weights,
            shapes={
                binding.name: shape
                for binding, shape in zip(plan.bindings, profile.shapes, strict=True)
                if binding.is_input
            },
            outputs=recipe.outputs or None,
            uff_order="NHWC" if recipe.image_order == "NHWC" else "NCHW",
            plugins=plugins,
        )
        for profile in plan.variants[0].profiles
    }
