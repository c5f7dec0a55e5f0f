"""Definitions found by place: one per module or sub-package of a folder.

Adding a kernel family or a lowering means adding a file; nothing else is edited.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from types import ModuleType
from typing import TYPE_CHECKING, Any

from builder_host.errors import BuilderError

if TYPE_CHECKING:
    from builder_host.kernels.family import KernelFamily


class RegistryError(BuilderError):
    """A folder of definitions breaks the rule: one definition per module, no duplicates."""


def collect_definitions(
    package: ModuleType, attribute: str, *, submodule: str = "", prefix: str = ""
) -> dict[str, Any]:
    """Import every module of a package and collect the value of one attribute from each.

    Args:
        package: an imported package; its modules are taken in alphabetical order.
        attribute: name that every module must bind, e.g. `DEFINITION`.
        submodule: look only in sub-packages, in their module of this name, e.g. `family`.
        prefix: look only in modules whose name starts with this.

    Returns:
        Value by module name (without the prefix), in alphabetical order.

    Raises:
        RegistryError: a module lacks the attribute, or two modules bind the same object.
    """
    found: dict[str, Any] = {}
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
        if not module.name.startswith(prefix) or (submodule and not module.ispkg):
            continue
        name = f"{package.__name__}.{module.name}" + (f".{submodule}" if submodule else "")
        loaded = importlib.import_module(name)
        if not hasattr(loaded, attribute):
            raise RegistryError(f"module {name} must bind {attribute}; it does not")
        value = getattr(loaded, attribute)
        for other, known in found.items():
            if known is value:
                raise RegistryError(f"module {name} binds the same {attribute} as {prefix}{other}")
        found[module.name.removeprefix(prefix)] = value
    return found


def modules_by_claim(package: ModuleType, attribute: str) -> dict[str, ModuleType]:
    """Import every module of a package; each claims the names that it lists.

    Args:
        package: an imported package.
        attribute: the list that every module must bind, e.g. `OPERATIONS`.

    Returns:
        Module by claimed name, sorted by name.

    Raises:
        RegistryError: a module lacks the attribute, or two modules claim one name.
    """
    found: dict[str, ModuleType] = {}
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        if not hasattr(module, attribute):
            raise RegistryError(f"module {module.__name__} must bind {attribute}; it does not")
        for name in getattr(module, attribute):
            other = found.setdefault(name, module)
            if other is not module:
                raise RegistryError(f"{other.__name__} and {module.__name__} both claim '{name}'")
    return dict(sorted(found.items()))


@functools.cache
def kernel_families(device_kind: str | None = None) -> tuple[KernelFamily, ...]:
    """Kernel families, sorted by their folders' names; this order breaks ties.

    Args:
        device_kind: `cpu` or `cuda`; None: all.

    Raises:
        RegistryError: a folder without `FAMILY`, or two families of one name.
    """
    from builder_host import kernels

    found = collect_definitions(kernels, "FAMILY", submodule="family")
    names: dict[str, str] = {}
    for folder, family in found.items():
        if family.name in names:
            raise RegistryError(
                f"kernels/{folder} and kernels/{names[family.name]} both name their family "
                f"'{family.name}'; tactic ids must be unique"
            )
        names[family.name] = folder
    return tuple(f for f in found.values() if device_kind in (None, f.device_kind))
