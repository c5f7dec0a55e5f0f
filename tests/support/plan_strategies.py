"""Hypothesis strategies for plans that follow every rule of the format."""

from __future__ import annotations

from hypothesis import strategies as st

from planformat.datatypes import DataType, TensorFormat
from planformat.fingerprint import DeviceFingerprint
from planformat.plan import (
    Argument,
    ArgumentKind,
    Binding,
    Canary,
    CodeKind,
    CodeObject,
    Kernel,
    Plan,
    Profile,
    Step,
    Variant,
)
from planformat.tensors import storage_bytes

_characters = st.characters(blacklist_categories=("Cs", "Cc"))
names = st.text(_characters, min_size=1, max_size=12)
texts = st.text(_characters, max_size=40)
keys = st.from_regex(r"[a-z0-9_]{1,6}(\.[a-z0-9_]{1,6}){0,2}", fullmatch=True)
times = st.none() | st.floats(0, 1e12, allow_nan=False)
_symbols = st.from_regex(r"[A-Za-z_][A-Za-z0-9_$.]{0,20}", fullmatch=True)
_dims = st.integers(1, 40)


@st.composite
def bindings(draw) -> tuple[Binding, ...]:
    """One to six bindings, inputs first."""
    unique = draw(st.lists(names, min_size=1, max_size=6, unique=True))
    num_inputs = draw(st.integers(0, len(unique) - 1))
    dtypes, formats = st.sampled_from(DataType), st.sampled_from(TensorFormat)
    return tuple(
        Binding(name, index < num_inputs, draw(dtypes), draw(formats))
        for index, name in enumerate(unique)
    )


def shape_of(binding: Binding) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes that the binding's format can hold."""
    if binding.format is TensorFormat.LINEAR:
        return st.lists(_dims, max_size=8).map(tuple).filter(lambda s: _size(s) <= 1 << 20)
    return st.tuples(_dims, _dims, _dims, _dims)


def _size(shape: tuple[int, ...]) -> int:
    return storage_bytes(shape, DataType.FLOAT64, TensorFormat.LINEAR)


@st.composite
def arguments(draw, sizes: list[int], arena_bytes: int, weights_bytes: int) -> Argument:
    """One argument that lies inside what it refers to."""
    kinds = [ArgumentKind.BINDING, ArgumentKind.IMMEDIATE]
    kinds += [ArgumentKind.ARENA] * (arena_bytes > 0) + [ArgumentKind.WEIGHTS] * (weights_bytes > 0)
    kind = draw(st.sampled_from(kinds))
    if kind is ArgumentKind.BINDING:
        index = draw(st.integers(0, len(sizes) - 1))
        return Argument(kind, index, draw(st.integers(0, sizes[index] - 1)))
    if kind is ArgumentKind.IMMEDIATE:
        return Argument(kind, draw(st.integers(-(1 << 63), (1 << 63) - 1)))
    size = arena_bytes if kind is ArgumentKind.ARENA else weights_bytes
    return Argument(kind, draw(st.integers(0, size - 1)))


@st.composite
def canaries(draw, rows: tuple[Binding, ...], sizes: list[int]) -> Canary | None:
    """A canary, or None where outputs do not allow one."""
    outputs = [(b, size) for b, size in zip(rows, sizes, strict=True) if not b.is_input]
    if any(b.format not in (TensorFormat.LINEAR, TensorFormat.NHWC) for b, _ in outputs):
        return None
    strides, expected = [], []
    for binding, size in outputs:
        width = binding.dtype.size_bytes
        strides.append(draw(st.integers(max(1, size // 64), 1 << 40)))
        expected.append(bytes(-(-(size // width) // strides[-1]) * width))
    return Canary(
        draw(st.integers(0, (1 << 64) - 1)),
        tuple(strides),
        tuple(expected),
        draw(st.floats(0, 1e30)),
        draw(st.floats(0, 1)),
        draw(times),
    )


@st.composite
def steps(draw, name: str, is_cpu: bool, num_kernels: int, one_argument) -> Step:
    """One launch on the CPU or on CUDA."""
    grid = draw(st.integers(1, (1 << 31) - 1))
    common = {
        "name": name,
        "kernel": draw(st.integers(0, num_kernels - 1)),
        "arguments": tuple(draw(st.lists(one_argument, max_size=4))),
        "is_concurrent": draw(st.booleans()),
        "tactic": draw(texts),
        "measured_us": draw(times),
        "predicted_us": draw(times),
    }
    if is_cpu:
        scratch = draw(st.integers(0, 1 << 32))
        return Step(grid=(grid, 1, 1), scratch_bytes_per_worker=scratch, **common)
    small = st.integers(1, 8)
    return Step(
        grid=(grid, draw(small), draw(small)),
        block=(draw(st.integers(1, 64)), draw(st.integers(1, 4)), draw(st.integers(1, 4))),
        cluster=draw(st.sampled_from([(1, 1, 1), (2, 1, 1), (4, 2, 2)])),
        shared_memory_bytes=draw(st.integers(0, 1 << 20)),
        is_dependent_launch=draw(st.booleans()),
        **common,
    )


@st.composite
def variants(draw, rows: tuple[Binding, ...], weights_bytes: int) -> Variant:
    """One variant of either device kind."""
    is_cpu = draw(st.booleans())
    kinds = [CodeKind.SHARED_OBJECT] if is_cpu else [CodeKind.CUBIN, CodeKind.PTX]
    codes = draw(
        st.lists(
            st.builds(
                CodeObject,
                st.sampled_from(kinds),
                st.sampled_from(["x86_64", "aarch64", "sm_87"]),
                names,
                st.binary(min_size=1, max_size=50),
            ),
            max_size=3,
        )
    )
    one_kernel = st.builds(Kernel, _symbols, st.integers(0, max(0, len(codes) - 1)))
    kernels = draw(st.lists(one_kernel, max_size=4)) if codes else []
    profiles = []
    for name in draw(st.lists(names, min_size=1, max_size=3, unique=True)):
        shapes = tuple(draw(shape_of(row)) for row in rows)
        sizes = [
            storage_bytes(shape, row.dtype, row.format)
            for row, shape in zip(rows, shapes, strict=True)
        ]
        arena = draw(st.integers(0, 1 << 40))
        one_argument = arguments(sizes, arena, weights_bytes)
        step_names = draw(st.lists(names, max_size=4, unique=True)) if kernels else []
        profiles.append(
            Profile(
                name,
                shapes,
                tuple(draw(steps(n, is_cpu, len(kernels), one_argument)) for n in step_names),
                arena,
                draw(st.integers(0, arena)),
                draw(st.integers(1, 1024)) if is_cpu else 1,
                draw(canaries(rows, sizes)) if draw(st.booleans()) else None,
            )
        )
    fields = draw(st.dictionaries(keys, texts, max_size=5))
    return Variant(
        DeviceFingerprint("cpu" if is_cpu else "cuda", fields),
        tuple(codes),
        tuple(kernels),
        tuple(profiles),
    )


@st.composite
def plans(draw) -> Plan:
    """Plans with up to two variants and up to three chunks of weights."""
    num_pages = draw(st.integers(0, 2))
    tail = draw(st.binary(max_size=30))
    weights = bytes(range(256)) * 16 * num_pages + tail
    lengths = (4096,) * num_pages + ((len(tail),) if tail else ())
    rows = draw(bindings())
    some = draw(
        st.lists(
            variants(rows, len(weights)),
            min_size=1,
            max_size=2,
            unique_by=lambda v: (v.fingerprint.device_kind, *sorted(v.fingerprint.fields.items())),
        )
    )
    provenance = draw(st.dictionaries(names, texts, max_size=3))
    details = draw(st.binary(max_size=40))  # the reader hands them on as they are
    return Plan(draw(names), rows, tuple(some), weights, lengths, provenance, details)
