"""A plugin's kernels as tactics and programs; shared by the CPU and the CUDA family."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from builder_host.errors import BuilderError, PluginError
from builder_host.kernels.family import (
    GridLaunch,
    Launch,
    Problem,
    Program,
    Tactic,
    symbol_for,
)
from builder_host.network.layers.plugin import PluginParams
from builder_host.plugins.macros import macro_lines
from builder_host.plugins.plugin import KernelRequest, Plugin, PluginKernel

DeviceKind = Literal["cpu", "cuda"]

_HEADERS = {"cpu": "ep_vector.h", "cuda": "ep_cuda.cuh"}
_MAX_KERNELS = 12
_KERNEL_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")
_SYMBOL = re.compile(r"[A-Za-z_]\w*")


def request_of(problem: Problem, device_kind: DeviceKind, target: object) -> KernelRequest:
    """The problem as a plugin sees it."""
    return KernelRequest(
        device_kind,
        target,
        problem.inputs,
        problem.outputs,
        problem.is_constant,
        problem.num_workers,
    )


def plugin_of(problem: Problem) -> Plugin:
    """The plugin of a problem of kind `plugin`."""
    params: PluginParams = problem.params
    return params.plugin


def supported_kernels(
    problem: Problem, device_kind: DeviceKind, target: object
) -> tuple[PluginKernel, ...]:
    """Kernels for a problem; none where the plugin does not take its layouts or device.

    Raises:
        PluginError: the plugin fails, or its kernels are malformed.
    """
    plugin, request = plugin_of(problem), request_of(problem, device_kind, target)
    try:
        if not plugin.supports(request):
            return ()
        found = tuple(plugin.kernels(request))
    except BuilderError:
        raise
    except Exception as error:
        raise PluginError(
            f"plugin '{plugin.name}': asking for {device_kind} kernels failed: "
            f"{type(error).__name__}: {error}"
        ) from error
    _check(plugin, found, device_kind)
    return found


def _check(plugin: Plugin, kernels: Sequence[PluginKernel], device_kind: DeviceKind) -> None:
    wanted = Launch if device_kind == "cpu" else GridLaunch
    if len(kernels) > _MAX_KERNELS:
        raise PluginError(
            f"plugin '{plugin.name}': has {len(kernels)} kernels, at most {_MAX_KERNELS} are tried"
        )
    names = [kernel.name for kernel in kernels]
    for kernel in kernels:
        where = f"plugin '{plugin.name}', kernel '{kernel.name}'"
        if not _KERNEL_NAME.fullmatch(kernel.name) or names.count(kernel.name) > 1:
            raise PluginError(f"{where}: kernel names are unique identifiers")
        if not kernel.launches or not all(isinstance(y, wanted) for y in kernel.launches):
            raise PluginError(f"{where}: on {device_kind} it needs launches of {wanted.__name__}")
        if kernel.workspace_bytes < 0:
            raise PluginError(f"{where}: workspace_bytes is {kernel.workspace_bytes}")
        for launch in kernel.launches:
            symbol = launch.symbol
            if not _SYMBOL.fullmatch(symbol) or not re.search(rf"\b{symbol}\b", kernel.source):
                raise PluginError(f"{where}: its source has no function '{symbol}'")


def tactics_of(family: str, kernels: Sequence[PluginKernel]) -> list[Tactic]:
    """One tactic per kernel; the hash of its source is part of the timing cache's key."""
    return [
        Tactic(family, (("kernel", kernel.name), ("source", _digest(kernel)))) for kernel in kernels
    ]


def program_of(
    problem: Problem, tactic: Tactic, device_kind: DeviceKind, target: object, hash_text: str
) -> Program:
    """Headers, macros and the plugin's source, its symbols made unique to all of that.

    Raises:
        PluginError: the plugin does not give the tactic's kernel again.
    """
    plugin = plugin_of(problem)
    for kernel in supported_kernels(problem, device_kind, target):
        if (kernel.name, _digest(kernel)) == (tactic.values["kernel"], tactic.values["source"]):
            break
    else:
        raise PluginError(
            f"plugin '{plugin.name}': kernel '{tactic.values['kernel']}' differs when asked for "
            "again; equal requests must give equal kernels"
        )
    request = request_of(problem, device_kind, target)
    macros = macro_lines(plugin, request)
    symbols = {
        name: symbol_for(f"plugin_{name}", problem.text(), tactic.text, hash_text, *macros)
        for name in dict.fromkeys(launch.symbol for launch in kernel.launches)
    }
    source = "\n".join(
        [
            f'#include "{_HEADERS[device_kind]}"',
            "",
            *macros,
            *(f"#define {name} {unique}" for name, unique in symbols.items()),
            "",
            f'#line 1 "plugin {plugin.name}, kernel {kernel.name}"',
            kernel.source.rstrip("\n"),
            "",
        ]
    )
    launches = tuple(replace(y, symbol=symbols[y.symbol]) for y in kernel.launches)
    return Program(source, launches, kernel.workspace_bytes)


def _digest(kernel: PluginKernel) -> str:
    text = "\0".join([kernel.source, repr(kernel.launches), str(kernel.workspace_bytes)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
