"""Runs generated NEON kernels on this machine: linked with a small main, under user-mode QEMU."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import builder_host.codegen as codegen

Array = np.ndarray[Any, Any]
Call = tuple[str, int, int]  # symbol, first unit, end

_FLAGS = (
    *("-target", "aarch64-linux-musl", "-static", "-O2", "-std=gnu11", "-ffp-contract=off"),
    *("-fno-math-errno", "-fno-trapping-math", "-fno-sanitize=all", "-Wall", "-Wextra", "-Werror"),
    "-DEP_ISA_NEON",
)
_GUARD_BYTES = 64
_DRIVER = """
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
typedef void launch(void *const *, int64_t, int64_t, void *);
{declarations}
int main(int argc, char **argv) {{
  static const size_t sizes[] = {{{sizes}}};
  static launch *const functions[] = {{{functions}}};
  void *args[{count}];
  FILE *in = fopen(argv[1], "rb");
  for (int i = 0; i < {count}; ++i) {{
    args[i] = aligned_alloc(64, (sizes[i] + 127) / 64 * 64);
    if (!in || fread(args[i], 1, sizes[i], in) != sizes[i]) return 1;
  }}
  int64_t call[4]; /* function, first unit, end, bytes of scratch */
  while (fread(call, sizeof call, 1, in) == 1) {{
    const size_t scratch_bytes = (size_t)call[3];
    uint8_t *scratch = aligned_alloc(64, (scratch_bytes + {guard} + 127) / 64 * 64);
    memset(scratch, 0xCD, scratch_bytes + {guard});
    functions[call[0]](args, call[1], call[2], scratch);
    for (int i = 0; i < {guard}; ++i)
      if (scratch[scratch_bytes + (size_t)i] != 0xCD) return 3;
    free(scratch);
  }}
  FILE *out = fopen(argv[2], "wb");
  for (int i = 0; i < {count}; ++i)
    if (!out || fwrite(args[i], 1, sizes[i], out) != sizes[i]) return 1;
  return argc != 3 || fclose(out);
}}
"""


@functools.cache
def emulator() -> str | None:
    """User-mode emulator of aarch64, if one is installed (Debian: qemu-user-static)."""
    return shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="edgeplan-aarch64-")


@functools.lru_cache(maxsize=1)  # a test runs a program a few times, then comes the next one
def _compiled(source: str, driver: str, features: tuple[str, ...]) -> Path:
    """The program with its main, linked statically, in the place of the one before it."""
    folder = Path(_folder().name)
    (folder / "kernel.c").write_text(source)
    (folder / "main.c").write_text(driver)
    cpu = "+".join(["-mcpu=generic", *features])
    include = f"-I{Path(codegen.__path__[0]) / 'c_include'}"
    files = ("kernel.c", "main.c", "-o", "kernel")
    done = subprocess.run(
        [sys.executable, "-m", "ziglang", "cc", *_FLAGS, cpu, include, *files],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stderr[:4000]}\n{source}"
    return folder / "kernel"


def run_emulated(
    source: str,
    arrays: Sequence[Array],
    calls: Sequence[Call],
    scratch_bytes: dict[str, int],
    *,
    features: Sequence[str] = (),
) -> list[Array]:
    """Content of all argument buffers after the calls, in order; the arrays stay as they are.

    Args:
        source: of a program.
        arrays: flat argument buffers in the kernel's order.
        calls: made in order.
        scratch_bytes: private memory by symbol; writing past it fails.
        features: of the CPU, as compilers name them, e.g. `dotprod`.
    """
    symbols = list(scratch_bytes)
    driver = _DRIVER.format(
        declarations="\n".join(
            f'launch {symbol} __attribute__((visibility("default")));' for symbol in symbols
        ),
        functions=", ".join(symbols),
        sizes=", ".join(str(array.nbytes) for array in arrays),
        count=len(arrays),
        guard=_GUARD_BYTES,
    )
    rows = [(symbols.index(name), begin, end, scratch_bytes[name]) for name, begin, end in calls]
    program = _compiled(source, driver, tuple(features))
    with tempfile.TemporaryDirectory(prefix="edgeplan-qemu-") as name:
        folder = Path(name)
        with (folder / "in").open("wb") as file:
            for array in arrays:
                file.write(array.tobytes())
            file.write(np.array(rows, np.int64).tobytes())
        command = [str(emulator()), "-cpu", "max", str(program), "in", "out"]
        ran = subprocess.run(command, cwd=folder, capture_output=True, timeout=300, check=False)
        assert ran.returncode != 3, "the kernel wrote past its scratch"
        assert ran.returncode == 0, f"status {ran.returncode}: {ran.stderr.decode()[:2000]}"
        content = (folder / "out").read_bytes()
    found, at = [], 0
    for array in arrays:
        found.append(np.frombuffer(content, array.dtype, array.size, at).copy())
        at += array.nbytes
    return found
