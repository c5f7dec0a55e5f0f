"""C compilers: which one makes code for a CPU target, and with which flags.

The default is the pinned `ziglang` wheel, which needs nothing else on the machine and
cross-compiles; `gcc`, `clang` or a path select another one.
"""

from __future__ import annotations

import functools
import importlib.util
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from builder_host.errors import CompileError
from builder_host.targets.target import CpuTarget

GLIBC_VERSION = "2.28"  # the oldest that the oldest supported boards' Linux ships

FLAGS = (
    "-O2",
    "-std=gnu11",
    "-fPIC",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-sanitize=all",
    "-fvisibility=hidden",
    "-fomit-frame-pointer",
    "-fno-asynchronous-unwind-tables",
    "-g0",
)
_ISA = {
    "avx512": ("x86_64", "x86_64_v4", "x86-64-v4", "EP_ISA_AVX512"),
    "avx2": ("x86_64", "x86_64_v3", "x86-64-v3", "EP_ISA_AVX2"),
    "neon": ("aarch64", "generic", "armv8-a", "EP_ISA_NEON"),
}
# Features beyond the base of the ISA that kernels use: LLVM's name -> gcc's spelling.
_EXTRA_FEATURES = {
    "x86_64": {"avx512vnni": "-mavx512vnni", "avx512bf16": "-mavx512bf16", "avxvnni": "-mavxvnni"},
    "aarch64": {"dotprod": "+dotprod", "fullfp16": "+fp16", "bf16": "+bf16", "i8mm": "+i8mm"},
}


@dataclass(frozen=True, slots=True)
class CCompiler:
    """A compiler that was found.

    Attributes:
        family: `zig`, `clang` or `gcc`.
        command: how to call it as a driver.
        bare_link: how to make a shared object without the C library.
        plan_link: flags that make a reproducible, stripped shared object.
        libraries: the C library's flags, to stand behind the objects.
        version: for the identity.
    """

    family: str
    command: tuple[str, ...]
    bare_link: tuple[str, ...]
    plan_link: tuple[str, ...]
    libraries: tuple[str, ...]
    version: str


_REPRODUCIBLE = ("-shared", "-s", "-Wl,--build-id=none", "-Wl,-z,now", "-Wl,-z,defs", "-nostdlib")


def resolve_compiler(compiler: str, target: CpuTarget) -> CCompiler:
    """Find a compiler for a target.

    Args:
        compiler: `zig`, `gcc`, `clang`, or the path of a gcc or clang.
        target: the CPU that code is made for.

    Raises:
        CompileError: the compiler is not installed, or cannot make code for the target.
    """
    if target.isa not in _ISA or _ISA[target.isa][0] != target.architecture:
        raise CompileError(
            f"no vector code for ISA '{target.isa}' on {target.architecture}; "
            f"known: {', '.join(f'{isa} ({row[0]})' for isa, row in _ISA.items())}"
        )
    if compiler == "zig":
        zig = zig_binary()
        triple = f"{target.architecture}-linux-gnu.{GLIBC_VERSION}"
        return CCompiler(
            "zig",
            (zig, "cc", "-target", triple),
            (zig, "ld.lld", "-shared", "-s", "--build-id=none", "-z", "now"),
            _REPRODUCIBLE,
            ("-lc",),
            f"zig {_version(zig, 'version')}, {_version(zig, 'cc', '--version')}, {triple}",
        )
    path = shutil.which(_cross_name(compiler, target))
    if path is None:
        raise CompileError(
            f"compiler '{_cross_name(compiler, target)}' is not installed; "
            "install it, or use the default '--cc zig' (pip install 'edgeplan[builder]')"
        )
    version = _version(path, "--version")
    family = "clang" if "clang" in version.lower() else "gcc"
    command: tuple[str, ...] = (path,)
    if family == "clang":
        command += (f"--target={target.architecture}-linux-gnu",)
    bare = (*command, "-shared", "-s", "-nostdlib", "-Wl,--build-id=none", "-Wl,-z,now")
    libraries = ("-Wl,--as-needed", "-lpthread", "-lc")
    return CCompiler(family, command, bare, _REPRODUCIBLE, libraries, version)


def _cross_name(compiler: str, target: CpuTarget) -> str:
    if compiler == "gcc" and platform.machine() != target.architecture:
        return f"{target.architecture}-linux-gnu-gcc"
    return compiler


def zig_binary() -> str:
    """Where the ziglang wheel keeps its program. Raises CompileError when it is not installed."""
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        raise CompileError(
            "the ziglang wheel is not installed; run: pip install 'edgeplan[builder]', "
            "or select another compiler with --cc gcc"
        )
    return str(Path(spec.origin).parent / "zig")


@functools.cache
def _version(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise CompileError(f"'{' '.join(command)}' failed: {error}") from error
    return done.stdout.strip().splitlines()[0]


def target_flags(family: str, target: CpuTarget) -> tuple[str, ...]:
    """Flags that select the instructions of a target, as compilers of this family spell them."""
    architecture, zig_cpu, march, define = _ISA[target.isa]
    extras = [f for f in sorted(_EXTRA_FEATURES[architecture]) if f in target.features]
    spelled = [_EXTRA_FEATURES[architecture][feature] for feature in extras]
    flags: list[str] = [f"-D{define}"]
    if family == "zig":
        flags.append("-mcpu=" + "+".join([zig_cpu, *extras]))
    elif architecture == "aarch64":
        flags.append(f"-march={march}{''.join(spelled)}")
    else:
        flags += [f"-march={march}", *spelled]
    if architecture == "aarch64":
        flags.append("-mno-outline-atomics")  # they live in libgcc, which is not linked
    if target.isa == "avx512":
        flags.append("-mprefer-vector-width=512")
    if family == "gcc":
        flags.append("-Wno-psabi")
    return tuple(flags)
