"""Cubins of test kernels for the GPU of this machine: by nvcc where there is one, else by NVRTC."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path


@functools.cache
def compile_cubin(source: str, architecture: str) -> bytes:
    """A cubin.

    Args:
        source: CUDA C++.
        architecture: `90a` and the like.
    """
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if nvcc is not None and "EDGEPLAN_NVRTC" not in os.environ:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "kernels.cu"
            path.write_text(source)
            code = f"arch=compute_{architecture},code=sm_{architecture}"
            command = [nvcc, "-cubin", "-std=c++17", "-gencode", code, "-o", "kernels.cubin"]
            subprocess.run([*command, str(path)], cwd=folder, check=True)
            return (Path(folder) / "kernels.cubin").read_bytes()
    from support.cuda_kernels import compile_all

    return compile_all([source], architecture)[0]
