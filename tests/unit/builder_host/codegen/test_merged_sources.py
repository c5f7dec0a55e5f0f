"""Sources in one translation unit: what may share one, and that its kernels are the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from support.cuda_kernels import make_target
from support.cuda_toolkits import need_toolkit

import builder_host as bh
from builder_host.codegen.artifacts import ArtifactStore
from builder_host.codegen.merged_sources import MAX_SOURCES, merge_sources
from builder_host.codegen.nvrtc_cubin import kernel_code
from builder_host.codegen.toolchain_cuda import CompiledCubin, CudaToolchain
from planformat.plan import CodeObject

CUDA, WGMMA = '#include "ep_cuda.cuh"\n', '#include "ep_wgmma.cuh"\n'


def source(name: str, *, ahead: str = "", include: str = CUDA, size: int = 3) -> str:
    return (
        f"// about {name}\n{ahead}{include}\n#define SYMBOL {name}\n#define SIZE {size}\n"
        "__device__ int number() { return SIZE; }\n"
        'extern "C" __global__ void SYMBOL(int *y) { y[0] = number(); }\n'
    )


def test_sources_get_a_namespace_each_and_forget_their_definitions() -> None:
    a, b = source("a"), source("b", size=4)
    (unit,) = merge_sources([a, b])
    assert unit.sources == (a, b)
    assert unit.text.count("#include") == 1
    first, second = unit.text.split("namespace ep_source_1")
    assert "namespace ep_source_0 {" in first
    assert first.index("#define SIZE 3") < first.index("#undef SIZE") < len(first)
    assert "#define SIZE 4" in second
    assert merge_sources([a, b])[0].text == unit.text


def test_what_is_defined_ahead_of_the_header_divides() -> None:
    early = "#define EP_STARTS_EARLY 1\n"
    plain = [source("a"), source("b")]
    others = [source("c", ahead=early), source("d", ahead=early)]
    units = merge_sources([plain[0], others[0], plain[1], others[1]])
    assert [unit.sources for unit in units] == [tuple(plain), tuple(others)]
    assert units[1].text.startswith(early + CUDA)
    assert early not in units[0].text


def test_headers_of_the_product_go_together_in_order() -> None:
    (unit,) = merge_sources([source("a", include=WGMMA), source("b"), source("c", include=WGMMA)])
    assert unit.text.startswith(WGMMA + CUDA)
    assert unit.text.count("#include") == 2


def test_other_sources_stay_alone() -> None:
    alone = [
        source("a"),
        source("b", include='#include "my.cuh"\n'),
        source("c", include="#include <cub/cub.cuh>\n"),
        source("d", include=""),
        source("e", ahead='#include "other.cuh"\n'),
        source("f", ahead="#define EP_STARTS_EARLY 1\n"),
    ]
    assert merge_sources(alone) == []


def test_units_are_of_equal_size_and_bounded() -> None:
    many = [source(f"k{number}") for number in range(MAX_SOURCES + 1)]
    units = merge_sources(many)
    assert [len(unit.sources) for unit in units] == [9, 8]
    assert [one for unit in units for one in unit.sources] == many


def test_dynamic_shared_memory_has_a_name_for_each_source(tmp_path: Path) -> None:
    texts = [
        CUDA + f'extern "C" __global__ void {name}(float *y) {{\n'
        f"  extern __shared__ __align__(16) {kind} shared[];\n"
        '  asm volatile("st.shared.u32 [%0], 1;" ::"r"(0) : "memory");\n'
        "  y[0] = shared[threadIdx.x];\n}\n"
        for name, kind in (("a", "float"), ("b", "unsigned char"))
    ]
    (unit,) = merge_sources(texts)
    for number in (0, 1):
        assert f" shared_of_source_{number}[];" in unit.text
        assert f"y[0] = shared_of_source_{number}[threadIdx.x]" in unit.text
    assert unit.text.count("extern __shared__ __align__(16)") == 2
    assert unit.text.count("st.shared.u32") == 2
    need_toolkit()
    toolchain = CudaToolchain(make_target("87"), store=ArtifactStore(tmp_path), jobs=1)
    (compiled,) = toolchain.compile_objects([unit.text])
    assert isinstance(compiled, CompiledCubin), compiled.error
    assert {kernel.name for kernel in compiled.kernels} == {"a", "b"}


def test_a_plan_has_few_modules_whose_kernels_are_those_that_were_timed(tmp_path: Path) -> None:
    need_toolkit()
    network = bh.Network("net")
    x = network.add_input("x", (1, 16, 16, 16))
    rng = np.random.default_rng(3)
    for number, size in enumerate((1, 3, 5)):
        weights = rng.standard_normal((16, 16, size, size)).astype(np.float32)
        x = network.add_convolution(x, 16, size, weights, pads=size // 2, name=f"c{number}").output
    network.mark_output(x, name="y")
    config = bh.BuilderConfig(
        target="h200@r560", precision="fp16", measure="none", artifact_dir=tmp_path
    )
    variant = bh.build(network, config).plan.variants[0]
    assert len(variant.kernels) >= 3
    assert len(variant.code_objects) < len(variant.kernels)
    shared = {kernel.code_object for kernel in variant.kernels}
    assert shared == set(range(len(variant.code_objects)))  # none is unused
    objects: list[CodeObject] = list(variant.code_objects)
    alone = {
        kernel.symbol: code
        for path in tmp_path.glob("objects/*/*/kernel.cubin")
        for kernel in variant.kernels
        if "ep_source_0" not in (path.parent / "kernel.cu").read_text()
        and (code := kernel_code(path.read_bytes(), kernel.symbol)) is not None
    }
    for kernel in variant.kernels:
        shipped = kernel_code(bytes(objects[kernel.code_object].data), kernel.symbol)
        assert shipped is not None
        assert shipped == alone[kernel.symbol]
