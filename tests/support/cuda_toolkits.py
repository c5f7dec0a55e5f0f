"""CUDA compilers for tests: installed from the package index on first use, in the user's cache."""

from __future__ import annotations

from builder_host.codegen.nvrtc_install import default_toolkit_root, install_cuda, is_installed

TOOLKIT = (12, 6)


def need_toolkit(version: tuple[int, int] = TOOLKIT) -> None:
    """Install a toolkit unless it is there; every test that builds for a GPU calls this first."""
    if not is_installed(version, default_toolkit_root()):
        install_cuda(version)
