"""Plugins: layers of your own, compiled into the plan. docs/plugins.md shows how to write one."""

from __future__ import annotations

from builder_host.kernels.family import GridLaunch, Launch
from builder_host.layouts import Layout
from builder_host.network.tensor_type import TensorType
from builder_host.plugins.plugin import Attribute, KernelRequest, Plugin, PluginKernel
from builder_host.plugins.registry import PluginNode, PluginRegistry, load_plugins

__all__ = [
    "Attribute",
    "GridLaunch",
    "KernelRequest",
    "Launch",
    "Layout",
    "Plugin",
    "PluginKernel",
    "PluginNode",
    "PluginRegistry",
    "TensorType",
    "load_plugins",
]
