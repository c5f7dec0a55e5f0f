"""CUDA toolkits from pip wheels, side by side: what to install, where, and what is there.

Only the compiler libraries, ptxas and headers are kept: no driver, no GPU and no system toolkit
are needed. Several versions share package names, so each is unpacked into a folder of its own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from builder_host.codegen.artifacts import default_root
from builder_host.codegen.nvrtc_process import NvrtcLibrary
from builder_host.errors import CompileError
from builder_host.targets.cuda import CudaVersion, version_text

INSTALL_TIMEOUT_S = 1800.0
_MARK = "edgeplan-toolkit.json"

PACKAGES: Mapping[CudaVersion, tuple[str, ...]] = MappingProxyType(
    {
        (11, 8): (
            "nvidia-cuda-nvrtc-cu11==11.8.89",
            "nvidia-cuda-runtime-cu11==11.8.89",
            "nvidia-cuda-nvcc-cu11==11.8.89",
        ),
        (12, 2): (
            "nvidia-cuda-nvrtc-cu12==12.2.140",
            "nvidia-cuda-runtime-cu12==12.2.140",
            "nvidia-cuda-nvcc-cu12==12.2.140",
        ),
        (12, 6): (
            "nvidia-cuda-nvrtc-cu12==12.6.85",
            "nvidia-cuda-runtime-cu12==12.6.77",
            "nvidia-cuda-nvcc-cu12==12.6.85",
        ),
        (12, 9): (
            "nvidia-cuda-nvrtc-cu12==12.9.86",
            "nvidia-cuda-runtime-cu12==12.9.79",
            "nvidia-cuda-nvcc-cu12==12.9.86",
        ),
        (13, 0): (
            "nvidia-cuda-nvrtc==13.0.88",
            "nvidia-cuda-runtime==13.0.96",
            "nvidia-cuda-crt==13.0.88",
        ),
    }
)
"""Pinned wheels of every toolkit; the nvcc wheels hold headers and ptxas, crt the headers of 13."""

# Not needed to compile: most of what the wheels unpack.
_SUPERFLUOUS = ("nvidia/*/nvvm", "nvidia/*/lib/*.alt.so*", "nvidia/*/lib/*.a", "bin")


@dataclass(frozen=True, slots=True)
class CudaToolkit:
    """An installed toolkit.

    Attributes:
        version: major and minor.
        packages: the wheels that it was unpacked from.
        library: libnvrtc and its builtins.
        include_folders: with `cuda_fp16.h`, `mma.h` and what they include.
        ptxas: the assembler; None when the wheels have none (13.0).
    """

    version: CudaVersion
    packages: tuple[str, ...]
    library: NvrtcLibrary
    include_folders: tuple[str, ...]
    ptxas: str | None


def default_toolkit_root() -> Path:
    """Folder of all toolkits below the user's cache folder, e.g. `~/.cache/edgeplan/cuda`."""
    return default_root().parent / "cuda"


def is_installed(version: CudaVersion, root: Path | None = None) -> bool:
    """Whether the pinned wheels of a toolkit are there."""
    mark = _folder(version, root) / _MARK
    try:
        content = json.loads(mark.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(content == {"packages": list(PACKAGES.get(version, ()))})


def load_toolkit(version: CudaVersion, root: Path | None = None) -> CudaToolkit:
    """Paths of an installed toolkit.

    Args:
        version: one of `PACKAGES`.
        root: folder of all toolkits; None: `default_toolkit_root()`.

    Raises:
        CompileError: unknown version, or not installed; the text says which command installs it.
    """
    _packages(version)
    folder = _folder(version, root)
    text = version_text(version)
    if not is_installed(version, root):
        raise CompileError(
            f"CUDA toolkit {text} is not installed in {folder}; "
            f"run: edgeplan toolchain install {text}"
        )
    major, minor = version
    soname = {11: "libnvrtc.so.11.2"}.get(major, f"libnvrtc.so.{major}")  # fixed since 11.2
    library = _one(folder, f"nvidia/*/lib/{soname}", text)
    builtins = _one(folder, f"nvidia/*/lib/libnvrtc-builtins.so.{major}.{minor}", text)
    includes = tuple(sorted(str(path) for path in folder.glob("nvidia/*/include")))
    ptxas = sorted(folder.glob("nvidia/*/bin/ptxas"))
    return CudaToolkit(
        version,
        _packages(version),
        NvrtcLibrary(str(library), str(builtins), version),
        includes,
        str(ptxas[0]) if ptxas else None,
    )


def install_cuda(
    version: CudaVersion, root: Path | None = None, *, is_forced: bool = False
) -> CudaToolkit:
    """Download and unpack a toolkit with pip, unless it is there.

    The folder appears whole, so that builds that run at once can share it.

    Args:
        version: one of `PACKAGES`.
        root: folder of all toolkits; None: `default_toolkit_root()`.
        is_forced: replace what is there.

    Raises:
        CompileError: unknown version, or pip failed; the text holds its last words.
    """
    packages = _packages(version)
    if is_installed(version, root) and not is_forced:
        return load_toolkit(version, root)
    folder = _folder(version, root)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    try:
        _pip_install(packages, fresh, version_text(version))
        for pattern in _SUPERFLUOUS:
            for path in fresh.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in fresh.glob("nvidia/*/bin/*"):
            if path.name != "ptxas":
                path.unlink()
        (fresh / _MARK).write_text(json.dumps({"packages": list(packages)}) + "\n")
        fresh.chmod(0o755)
        if folder.is_dir() and (is_forced or not is_installed(version, root)):
            shutil.rmtree(folder)
        try:
            fresh.rename(folder)
        except OSError:
            if not is_installed(version, root):  # else another process was faster
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return load_toolkit(version, root)


def _pip_install(packages: tuple[str, ...], folder: Path, version: str) -> None:
    if importlib.util.find_spec("pip") is None:
        raise CompileError(
            f"this Python has no pip, which unpacks CUDA toolkit {version}; "
            "run: python -m ensurepip"
        )
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--no-compile", "--only-binary=:all:", "--target", str(folder)),
        *packages,
    ]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=INSTALL_TIMEOUT_S,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired as error:
        raise CompileError(
            f"installing CUDA toolkit {version} was stopped after {INSTALL_TIMEOUT_S:.0f} s: "
            + " ".join(command)
        ) from error
    if done.returncode != 0:
        raise CompileError(
            f"installing CUDA toolkit {version} failed: {' '.join(command)}\n"
            f"{done.stderr.strip()[-2000:]}"
        )


def _folder(version: CudaVersion, root: Path | None) -> Path:
    return (root or default_toolkit_root()) / version_text(version)


def _packages(version: CudaVersion) -> tuple[str, ...]:
    if version not in PACKAGES:
        known = ", ".join(version_text(one) for one in PACKAGES)
        raise CompileError(f"no CUDA toolkit {version_text(version)} is known; known: {known}")
    return PACKAGES[version]


def _one(folder: Path, pattern: str, version: str) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise CompileError(
            f"CUDA toolkit {version} in {folder} lacks {pattern}; "
            f"run: edgeplan toolchain install {version} --force"
        )
    return found[0]
