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


_CUDA_FOLDERS = "cuda_"


class RegistryError(BuilderError):
    """A folder of definitions breaks the rule: one definition per module, no duplicates."""


def collect_definitions(
    package: ModuleType,
    attribute: str,
    *,
    submodule: str = "",
    prefix: str = "",
    other_than: str | None = None,
) -> dict[str, Any]:
    """Import every module of a package and collect the value of one attribute from each.

    Args:
        package: an imported package; its modules are taken in alphabetical order.
        attribute: name that every module must bind, e.g. `DEFINITION`.
        submodule: look only in sub-packages, in their module of this name, e.g. `family`.
        prefix: look only in modules whose name starts with this.
        other_than: leave out modules whose name starts with this.

    Returns:
        Value by module name (without the prefix), in alphabetical order.

    Raises:
        RegistryError: a module lacks the attribute, or two modules bind the same object.
    """
    found: dict[str, Any] = {}
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
        if not module.name.startswith(prefix) or (submodule and not module.ispkg):
            continue
        if other_than is not None and module.name.startswith(other_than):
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

    Families for GPUs are in folders `cuda_*`, those for CPUs in the others: a build imports its own
    kind only.

    Args:
        device_kind: `cpu` or `cuda`; None: all.

    Raises:
        RegistryError: a folder without `FAMILY`, a family in a folder of the other kind, or two
            families of one name.
    """
    from builder_host import kernels

    families: dict[str, KernelFamily] = {}
    if device_kind != "cuda":
        families |= _families_in(kernels, "cpu", other_than=_CUDA_FOLDERS)
    if device_kind != "cpu":
        found = _families_in(kernels, "cuda", prefix=_CUDA_FOLDERS)
        families |= {_CUDA_FOLDERS + folder: family for folder, family in found.items()}
    names: dict[str, str] = {}
    for folder, family in sorted(families.items()):
        if family.name in names:
            raise RegistryError(
                f"kernels/{folder} and kernels/{names[family.name]} both name their family "
                f"'{family.name}'; tactic ids must be unique"
            )
        names[family.name] = folder
    return tuple(families[folder] for folder in sorted(families))


def _families_in(package: ModuleType, device_kind: str, **which: str) -> dict[str, KernelFamily]:
    found = collect_definitions(package, "FAMILY", submodule="family", **which)
    for folder, family in found.items():
        if family.device_kind != device_kind:
            raise RegistryError(
                f"kernel family '{family.name}' is for '{family.device_kind}' devices: folders "
                f"'{_CUDA_FOLDERS}*' hold those for GPUs and the others those for CPUs; rename "
                f"the folder of '{folder}'"
            )
    return found
