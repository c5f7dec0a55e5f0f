"""Contexts: execute, enqueue, bindings, memory, misuse."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
from array import array
from pathlib import Path

import numpy as np
import pytest
from support import tiny_plans

import runtime_edge as rt
from planformat.writer import plan_bytes

X = np.arange(1000, dtype=np.float32).reshape(1, 1000)
Y = X * np.float32(0.5) + np.float32(3)


@pytest.fixture(scope="module")
def engine():
    return rt.load(plan_bytes(tiny_plans.plan(slow_times=2000)))


@pytest.fixture
def context(engine):
    with engine.create_context() as context:
        yield context


@pytest.fixture
def stream(engine):
    stream = engine.create_stream()
    yield stream
    stream.close()


class Arena:
    """An allocator that counts."""

    def __init__(self) -> None:
        self.blocks: dict[int, ctypes.Array] = {}
        self.sizes: list[int] = []

    def allocate(self, nbytes: int, alignment: int) -> int:
        block = (ctypes.c_char * (nbytes + alignment))()
        address = -(-ctypes.addressof(block) // alignment) * alignment
        self.blocks[address] = block
        self.sizes.append(nbytes)
        return address

    def free(self, address: int) -> None:
        del self.blocks[address]


def test_execute(context):
    assert np.array_equal(context.execute({"x": X})["y"], Y)
    assert context.execute({"x": X})["y"].ctypes.data % 64 == 0


def test_run_computes_on_the_calling_thread(context, stream):
    out = np.empty_like(X)
    context.run({"x": X, "y": out})
    assert np.array_equal(out, Y)
    other = np.empty_like(X)
    context.enqueue({"x": X, "y": other}, stream)
    stream.synchronize()
    context.run({"x": -X, "y": out.ctypes.data})
    assert np.array_equal(out, np.float32(6) - Y)  # 0.5 x + 3, exact in halves
    assert np.array_equal(other, Y)
    with pytest.raises(rt.BindingError, match="missing output 'y'"):
        context.run({"x": X})
    context.close()
    with pytest.raises(rt.ContextBusyError, match="the context is closed"):
        context.run({"x": X, "y": out})


def test_execute_writes_to_given_outputs(context):
    out = np.empty_like(X)
    result = context.execute({"x": X}, {"y": out})
    assert result["y"] is out
    assert np.array_equal(out, Y)


def test_execute_takes_arrays_that_are_not_contiguous_or_aligned(context):
    wide = np.zeros((1, 2000), np.float32)
    wide[:, ::2] = X
    assert np.array_equal(context.execute({"x": wide[:, ::2]})["y"], Y)
    raw = bytearray(4 + X.nbytes + 60)
    odd = np.frombuffer(raw, np.float32, 1000, offset=4).reshape(1, 1000)
    odd[:] = X
    assert np.array_equal(context.execute({"x": odd})["y"], Y)


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ({}, {}, "input 'x' is missing; the plan has the inputs x"),
        ({"x": X, "z": X}, {}, "no such input or output: z; inputs are x, outputs are y"),
        ({"x": X, "y": X.copy()}, {}, "no such input or output: y"),
        ({"x": X.astype(np.float64)}, {}, r"elements are float64, expected float32; convert with"),
        ({"x": X[0]}, {}, r"shape is \[1000\], this profile has \[1, 1000\]"),
        ({"x": X.tolist()}, {}, "got list, expected a NumPy array of float32"),
        ({"x": X}, {"y": np.zeros((1, 10), np.float32)}, r"output 'y': shape is \[1, 10\]"),
        ({"x": X}, {"y": np.zeros((1, 2000), np.float32)[:, ::2]}, "output 'y'.*C-contiguous"),
    ],
)
def test_execute_refuses(context, inputs, outputs, message):
    with pytest.raises(rt.BindingError, match=message):
        context.execute(inputs, outputs)
    assert np.array_equal(context.execute({"x": X})["y"], Y)


def test_execute_refuses_outputs_that_cannot_be_written_in_place(context):
    frozen = X.copy()
    frozen.flags.writeable = False
    assert np.array_equal(context.execute({"x": frozen})["y"], Y)
    wide = np.zeros((1, 2000), np.float32)
    both = X.copy()
    for x, y, message in (
        (X, frozen, "must be C-contiguous and writable"),
        (X, wide[:, ::2], "must be C-contiguous and writable"),
        (both, both, "outputs need memory of their own"),
    ):
        with pytest.raises(rt.BindingError, match=message):
            context.execute({"x": x}, {"y": y})
    assert not wide.any()
    assert np.array_equal(both, X)
    assert np.array_equal(context.execute({"x": both})["y"], Y)


def test_enqueue_takes_addresses_pairs_and_buffers(context, stream):
    out = np.empty_like(X)
    for x, y in [
        (X, out),
        (X.ctypes.data, out.ctypes.data),
        (rt.MemoryRegion(X.ctypes.data, X.nbytes), (out.ctypes.data, out.nbytes)),
        (X.tobytes(), memoryview(out)),
        (array("f", X.tobytes()), out.reshape(-1)),
        ((ctypes.c_float * 1000)(*X[0]), out),
    ]:
        out[:] = 0
        context.enqueue({"x": x, "y": y}, stream)
        stream.synchronize()
        assert np.array_equal(out, Y)


OUT = np.zeros_like(X)


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        ({"x": X}, r"missing output 'y' \(f32 1x1000, 4,000 bytes\); the plan has x, y"),
        ({"x": X, "y": OUT, "z": X}, "unknown 'z'"),
        ({"x": X, "z": OUT}, "missing output 'y'.*unknown 'z'"),
        ({"x": X, "y": 0}, "address 0x0 is not a positive multiple of 4"),
        ({"x": X, "y": -64}, "is not a positive multiple of 4"),
        ({"x": X.ctypes.data + 1, "y": OUT}, "input 'x'.* is not a positive multiple of 4"),
        ({"x": (X.ctypes.data, 3999), "y": OUT}, "the memory given has 3,999 bytes only"),
        ({"x": X[:, :999].copy(), "y": OUT}, r"has 3,996 bytes, shape \[1, 999\]"),
        ({"x": X.view(np.int32), "y": OUT}, "elements are i32; convert them to f32 first"),
        ({"x": X.astype(">f4"), "y": OUT}, "elements are of another type"),
        ({"x": X.reshape(1000, 1), "y": OUT}, r"the shape is \[1000, 1\]; reshape it to"),
        ({"x": X, "y": bytes(4000)}, "output 'y'.*cannot be used.*must be C-contiguous and writ"),
        ({"x": np.zeros((1, 2000), np.float32)[:, ::2], "y": OUT}, "must be C-contiguous"),
        ({"x": "text", "y": OUT}, "got str; pass an address"),
        ({"x": OUT, "y": OUT}, "overlaps .*outputs need memory of their own"),
        ({"x": OUT.ctypes.data + 3996, "y": OUT}, "overlaps"),
    ],
)
def test_enqueue_refuses(context, stream, bindings, message):
    for _ in range(2):  # also when the same objects come again
        with pytest.raises(rt.BindingError, match=message):
            context.enqueue(bindings, stream)
    out = np.zeros_like(X)
    context.enqueue({"x": X, "y": out}, stream)
    stream.synchronize()
    assert np.array_equal(out, Y)


def test_a_bound_buffer_cannot_be_resized_until_it_is_replaced(context, stream):
    data = bytearray(X.tobytes())
    context.enqueue({"x": data, "y": OUT}, stream)
    with pytest.raises(BufferError):
        data.extend(b"more")
    stream.synchronize()
    context.enqueue({"x": X, "y": OUT}, stream)
    stream.synchronize()
    data.extend(b"more")


def test_runs_in_flight_keep_their_own_addresses_and_buffers(context, stream):
    outputs = [np.zeros_like(X) for _ in range(300)]  # more than the queue holds
    for i, out in enumerate(outputs):
        context.enqueue({"x": X + np.float32(i), "y": out}, stream)  # the input is a temporary
    stream.synchronize()
    for i, out in enumerate(outputs):
        assert np.array_equal(out, (X + np.float32(i)) * np.float32(0.5) + np.float32(3))


def test_dropping_everything_after_enqueue_is_safe(engine):
    out = np.zeros((1, 10), np.float32)
    stream = engine.create_stream()
    context = engine.create_context(profile="slow")
    context.enqueue({"x": np.ones((1, 1000), np.float32), "y": out}, stream)
    del context, stream
    gc.collect()
    assert out.tolist() == [[2_000_000.0] * 10]


@pytest.mark.parametrize("kind", ["address", "pair", "buffer", "allocator"])
def test_callers_arena(engine, kind):
    needed = engine.context_bytes()
    memory = bytearray(b"\xee" * (needed + 64))
    view = (ctypes.c_char * len(memory)).from_buffer(memory)
    start = -(-ctypes.addressof(view) // 64) * 64
    allocator = Arena()
    arena = {
        "address": start,
        "pair": (start, needed),
        "buffer": memory,
        "allocator": allocator,
    }[kind]
    with engine.create_context(arena=arena) as context:
        assert np.array_equal(context.execute({"x": X})["y"], Y)
        if kind != "allocator":
            used = memory[start - ctypes.addressof(view) :]
            assert used[64 : 64 + 4000] == (X * np.float32(0.5)).tobytes()  # the plan's arena
            assert used[needed:] == b"\xee" * (len(used) - needed)
        else:
            assert allocator.sizes == [needed]
    assert not allocator.blocks


def test_contexts_on_one_stream_share_an_arena(engine, stream):
    memory = bytearray(engine.context_bytes() + 64)
    with engine.create_context(arena=memory) as a, engine.create_context(arena=memory) as b:
        outputs = [np.zeros_like(X) for _ in range(20)]
        for i, out in enumerate(outputs):
            (a, b)[i % 2].enqueue({"x": X * np.float32(i), "y": out}, stream)
        stream.synchronize()
        for i, out in enumerate(outputs):
            assert np.array_equal(out, X * np.float32(i) * np.float32(0.5) + np.float32(3))


def test_unfit_arenas_are_refused(engine):
    needed = engine.context_bytes()
    with pytest.raises(rt.MemoryRegionError, match=f"but {needed:,} are needed"):
        engine.create_context(arena=bytearray(needed - 1))
    with pytest.raises(rt.MemoryRegionError, match=f"but {needed:,} are needed"):
        engine.create_context(arena=(64, needed - 1))
    with pytest.raises(rt.MemoryRegionError, match="not a positive multiple of 64"):
        engine.create_context(arena=4100)
    with pytest.raises(rt.MemoryRegionError, match="got bytes"):
        engine.create_context(arena=bytes(needed + 64))
    with pytest.raises(rt.MemoryRegionError, match="got float"):
        engine.create_context(arena=1.5)


def test_strict_mode():
    allocator = Arena()
    config = rt.RuntimeConfig(strict=True, allocator=allocator)
    engine = rt.load(plan_bytes(tiny_plans.plan()), config=config)  # the canary may allocate
    assert not allocator.blocks
    with pytest.raises(rt.StrictModeError, match="strict mode forbids the runtime to allocate"):
        engine.create_context()
    with engine.create_context(arena=bytearray(engine.context_bytes() + 64)) as context:
        with pytest.raises(rt.StrictModeError, match="output 'y': strict mode"):
            context.execute({"x": X})
        out = np.zeros_like(X)
        context.execute({"x": X}, {"y": out})
        assert np.array_equal(out, Y)
        wide = np.zeros((1, 2000), np.float32)
        with pytest.raises(rt.BindingError, match="C-contiguous"):
            context.execute({"x": wide[:, ::2]}, {"y": out})


def test_one_user_at_a_time(engine):
    """Two threads take the context in turns, whichever comes first; the other one is refused."""
    context = engine.create_context(profile="slow")
    x = np.ones_like(X)
    refused, is_over, deadline = [], threading.Event(), time.monotonic() + 60

    def use():
        try:
            context.execute({"x": x}, {"y": np.zeros((1, 10), np.float32)})
        except rt.ContextBusyError as error:
            refused.append(str(error))

    def work():
        while not is_over.is_set():
            use()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        while len(refused) < 3:
            assert time.monotonic() < deadline
            use()
    finally:
        is_over.set()
        thread.join()
    assert all("in use by another thread" in text for text in refused)


def test_a_context_stays_on_its_stream_while_it_works(engine, stream):
    other = engine.create_stream()
    context = engine.create_context(profile="slow")
    x, y = np.ones_like(X), np.zeros((1, 10), np.float32)
    gate = threading.Event()
    stream.call(gate.wait)  # the work cannot have finished before the gate opens
    context.enqueue({"x": x, "y": y}, stream)
    with pytest.raises(rt.ContextBusyError, match="still has work on another stream"):
        context.enqueue({"x": x, "y": y}, other)
    with pytest.raises(rt.ContextBusyError, match="still has work on a stream"):
        context.execute({"x": x})
    gate.set()
    stream.synchronize()
    context.enqueue({"x": x, "y": y}, other)
    other.synchronize()
    assert y.tolist() == [[2_000_000.0] * 10]
    context.close()
    with pytest.raises(rt.ContextBusyError, match="the context is closed"):
        context.enqueue({"x": x, "y": y}, other)
    with pytest.raises(rt.ContextBusyError, match="the context is closed"):
        context.execute({"x": x})


@pytest.mark.parametrize("stream", [None, 0])
def test_a_missing_stream_is_an_error(context, stream):
    with pytest.raises(rt.BindingError, match="there is no default stream"):
        context.enqueue({"x": X, "y": OUT}, stream)


def test_step_times(context):
    out = np.zeros_like(X)
    times = context.measure_steps({"x": X, "y": out}, repeats=5)
    assert [t.name for t in times] == ["scale0", "shift0"]
    assert [t.tactic for t in times] == ["t0", "t1"]
    assert all(t.time_us >= 0 and t.built_us is None for t in times)
    assert np.array_equal(out, Y)
    with pytest.raises(ValueError, match="repeats is 0"):
        context.measure_steps({"x": X, "y": out}, repeats=0)


@pytest.mark.parametrize("num_workers", [1, 2, 3, 5])
def test_any_number_of_workers_gives_the_same_bits(engine, num_workers):
    x = np.random.default_rng(5).standard_normal((1, 1000), np.float32)
    want = x * np.float32(0.5) + np.float32(3)
    with engine.create_context(num_workers=num_workers) as context:
        for _ in range(200):
            assert np.array_equal(context.execute({"x": x})["y"], want)


def test_workers_are_pinned_to_cores_of_their_own():
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("needs two cores")
    engine = rt.load(plan_bytes(tiny_plans.plan(num_workers=2)))
    with engine.create_context() as context:
        before = os.sched_getaffinity(0)
        context.execute({"x": X})
        assert len(context._program.worker_cores()) == 1
        assert set(context._program.worker_cores()) <= cores
        assert os.sched_getaffinity(0) == before  # the caller is never pinned
    with engine.create_context(num_workers=len(cores) + 1) as context:
        context.execute({"x": X})
        assert context._program.worker_cores() == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of newer Pythons
def test_forked_child_refuses_a_context_of_its_parent(context):
    if not hasattr(os, "fork"):
        pytest.skip("no fork")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            context.execute({"x": X})
            os.write(write, b"ran")
        except rt.DeviceError as error:
            os.write(write, b"refused" if "forked" in str(error) else b"other text")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 100) == b"refused"
    os.close(read)
    os.close(write)
    assert np.array_equal(context.execute({"x": X})["y"], Y)


def test_memory_stays_flat(engine, stream):
    def resident_bytes() -> int:
        # statm counts per core and adds up later: it is off by hundreds of KiB on many cores.
        exact = Path("/proc/self/smaps_rollup")
        if not exact.exists():  # a kernel without CONFIG_PROC_PAGE_MONITOR
            pages = Path("/proc/self/statm").read_text().split()[1]
            return int(pages) * os.sysconf("SC_PAGE_SIZE")
        lines = exact.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss:"))

    with engine.create_context(num_workers=2) as context:
        out = np.zeros_like(X)

        def work(count: int) -> None:
            for i in range(count):
                context.enqueue({"x": X, "y": out}, stream)
                if i % 7 == 0:
                    stream.synchronize()
            stream.synchronize()
            for _ in range(count // 10):
                context.execute({"x": X})
            for _ in range(count // 500):
                engine.create_context(num_workers=2).close()
                engine.create_stream().close()

        def growth(count: int) -> int:
            gc.collect()
            before = resident_bytes()
            work(count)
            gc.collect()
            return resident_bytes() - before

        work(3000)
        # 256 KiB: pages that the allocator may keep; a leak of 20 bytes per run would be more,
        # and it would be so every time. A queue that was never as full takes its memory once.
        assert any(growth(20_000) <= 256 << 10 for _ in range(3))
