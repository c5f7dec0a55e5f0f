"""C that is compiled into every CPU code object: the CPU code ABI's other half.

`SOURCE_FILES` are compiled beside the generated kernels, with `INCLUDE_FILES` in the include path
and `LINK_FLAGS` when the shared object is linked.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
SOURCE_FILES = (FOLDER / "edgeplan_pool.c", FOLDER / "edgeplan_streams.c")
INCLUDE_FILES = (FOLDER / "edgeplan_cpu.h", FOLDER / "edgeplan_threads.h")
LINK_FLAGS = ("-pthread",)
