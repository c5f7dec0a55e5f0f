"""Install the CUDA toolkits that compile for boards, or list them.

A board's driver decides which toolkit is needed; a build says so when it is missing. Toolkits are
unpacked from pip wheels into the user's cache folder: no GPU, driver or system toolkit is needed.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from builder_host.codegen.nvrtc_install import (
    PACKAGES,
    default_toolkit_root,
    install_cuda,
    is_installed,
)
from builder_host.errors import TargetError
from builder_host.targets.cuda import ARCHITECTURES, CudaVersion, version_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edgeplan toolchain`."""
    parser.add_argument("action", choices=("install", "list"), help="what to do")
    parser.add_argument("versions", metavar="VERSION", nargs="*", help="e.g. 12.6 (install)")
    parser.add_argument("--force", action="store_true", help="install again what is there")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.action == "install":
        if not args.versions:
            raise TargetError(f"name the CUDA versions to install: {_known()}")
        for version in [_parse(text) for text in args.versions]:
            toolkit = install_cuda(version, is_forced=args.force)
            if not args.json:
                print(f"CUDA toolkit {version_text(version)}: {toolkit.library.library}")
    elif args.versions:
        raise TargetError(f"'list' takes no versions; got {' '.join(args.versions)}")
    rows: list[dict[str, Any]] = [
        {
            "version": version_text(version),
            "is_installed": is_installed(version),
            "architectures": [
                f"sm_{row.name}"
                for row in ARCHITECTURES.values()
                if row.first_toolkit <= version <= row.last_toolkit
            ],
            "packages": list(packages),
        }
        for version, packages in PACKAGES.items()
    ]
    if args.json:
        print(json.dumps({"folder": str(default_toolkit_root()), "toolkits": rows}))
    elif args.action == "list":
        print(f"folder: {default_toolkit_root()}")
        for row in rows:
            state = "installed" if row["is_installed"] else "-"
            print(f"{row['version']:6} {state:10} {' '.join(row['architectures'])}")
    return 0


def _parse(text: str) -> CudaVersion:
    for version in PACKAGES:
        if version_text(version) == text:
            return version
    raise TargetError(f"no CUDA toolkit '{text}' is known; known: {_known()}")


def _known() -> str:
    return ", ".join(version_text(version) for version in PACKAGES)
