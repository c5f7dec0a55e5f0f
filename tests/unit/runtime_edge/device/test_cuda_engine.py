"""CUDA plans on the stand-in GPU: loading, running, rebinding, streams, memory."""

from __future__ import annotations

import gc
import logging
import threading

import numpy as np
import pytest
from support import cuda_plans

import runtime_edge as rt
from planformat.errors import FingerprintMismatchError
from planformat.fingerprint import DeviceFingerprint
from runtime_edge.device.cuda import CudaDevice

X = np.linspace(-1, 1, 1000, dtype=np.float32).reshape(1, 1000)


def expected(x):
    return x * np.float32(cuda_plans.SCALE) + np.float32(cuda_plans.SHIFT)


Y = expected(X)


@pytest.fixture
def engine(plan_data):
    with rt.load(plan_data()) as loaded:
        yield loaded


class Memory:
    """Device memory for both bindings."""

    def __init__(self, device, x=X, y_shape=Y.shape):
        self.device = device
        self.y_shape = y_shape
        self.x = device.allocate(x.nbytes, 256)
        self.y_bytes = int(np.prod(y_shape)) * 4
        self.y = device.allocate(self.y_bytes, 256)
        device.write(self.x, x.tobytes())

    @property
    def bindings(self):
        return {"x": self.x, "y": self.y}

    def result(self):
        return np.frombuffer(self.device.read(self.y, self.y_bytes), np.float32).reshape(
            self.y_shape
        )

    def free(self):
        self.device.free(self.x)
        self.device.free(self.y)


@pytest.fixture
def memory(engine):
    made = Memory(engine.device)
    yield made
    made.free()


def test_a_plan_for_a_gpu_is_loaded_on_the_gpu(engine):
    assert engine.device.kind == "cuda"
    assert engine.fingerprint.fields["cuda.compute_capability"] == "8.7"
    assert "every fingerprint field matches" in engine.selection
    assert engine.canary_report.num_compared == 100


def test_execute_takes_and_gives_arrays(engine):
    with engine.create_context() as context:
        assert np.array_equal(context.execute({"x": X})["y"], Y)
        assert np.array_equal(context.execute({"x": X + 1})["y"], expected(X + 1))


def test_enqueue_is_one_graph_launch(engine, memory, gpu):
    with engine.create_context() as context, engine.create_stream() as stream:
        context.enqueue(memory.bindings, stream)
        stream.synchronize()
        assert np.array_equal(memory.result(), Y)
        launches, graphs = gpu.calls("cuLaunchKernel"), gpu.calls("cuGraphLaunch")
        updates = gpu.calls("cuGraphExecKernelNodeSetParams")
        for _ in range(10):
            context.enqueue(memory.bindings, stream)
        stream.synchronize()
        assert gpu.calls("cuLaunchKernel") == launches
        assert gpu.calls("cuGraphLaunch") == graphs + 10
        assert gpu.calls("cuGraphExecKernelNodeSetParams") == updates


def test_rebinding_updates_only_the_nodes_that_use_the_binding(plan_data, gpu):
    with rt.load(plan_data(num_pairs=5)) as engine:
        first, second = Memory(engine.device), Memory(engine.device, X + 1)
        with engine.create_context() as context, engine.create_stream() as stream:
            context.enqueue(first.bindings, stream)
            updates = gpu.calls("cuGraphExecKernelNodeSetParams")
            instances = gpu.calls("cuGraphInstantiate")
            context.enqueue({"x": second.x, "y": second.y}, stream)
            stream.synchronize()
            assert gpu.calls("cuGraphExecKernelNodeSetParams") == updates + 2  # of ten
            assert gpu.calls("cuGraphInstantiate") == instances
        for memory, x in ((first, X), (second, X + 1)):
            for _ in range(5):
                x = expected(x)
            assert np.array_equal(memory.result(), x)
        first.free()
        second.free()


def test_a_run_under_way_keeps_the_addresses_that_it_began_with(plan_data):
    with rt.load(plan_data()) as engine:
        gate = Memory(engine.device, np.zeros((1, 1), np.float32), (1, 1))
        memories = [Memory(engine.device, X + i) for i in range(3)]
        with (
            engine.create_context(profile="gate") as closed,
            engine.create_context() as context,
            engine.create_stream() as stream,
        ):
            closed.enqueue(gate.bindings, stream)
            for memory in memories:
                context.enqueue(memory.bindings, stream)
            with pytest.raises(rt.ContextBusyError, match="on another stream"):
                context.enqueue(memories[0].bindings, engine.create_stream())
            engine.device.write(gate.x, np.ones(1, np.float32).tobytes())
            stream.synchronize()
            for i, memory in enumerate(memories):
                assert np.array_equal(memory.result(), expected(X + i))
        for memory in (gate, *memories):
            memory.free()


def test_clusters_and_large_shared_memory(engine):
    rng = np.random.default_rng(1)
    values = rng.integers(-8, 8, (1, 1024)).astype(np.float32)
    with engine.create_context(profile="sum") as context:
        assert np.array_equal(
            context.execute({"x": values})["y"], values.reshape(4, 256).sum(1)[None]
        )
    with engine.create_context(profile="reverse") as context:
        assert np.array_equal(context.execute({"x": X})["y"], X[:, ::-1])


def test_steps_are_timed_in_one_graph(engine, memory, gpu):
    with engine.create_context() as context:
        times = context.measure_steps(memory.bindings, repeats=3)
        assert [t.name for t in times] == ["scale0", "shift0"]
        assert all(t.time_us >= 0 for t in times)
        instances = gpu.calls("cuGraphInstantiate")
        context.measure_steps(memory.bindings, repeats=3)
        assert gpu.calls("cuGraphInstantiate") == instances


def test_the_callers_streams(engine, memory):
    import pycuda.driver as cuda

    device = cuda.Device(0).retain_primary_context()
    device.push()
    stream = cuda.Stream()
    event = cuda.Event()

    class Wrapped:
        def __init__(self, handle):
            self.handle = handle

        def __cuda_stream__(self):
            return 0, self.handle

    try:
        with engine.create_context() as context:
            for given in (stream, stream.handle, Wrapped(stream.handle), 1, 2):
                engine.device.write(memory.y, bytes(memory.y_bytes))
                context.enqueue(memory.bindings, given)
                adopted = engine.device.adopt_stream(given)
                adopted.synchronize()
                assert not adopted.is_owned
                assert np.array_equal(memory.result(), Y)
            own = engine.create_stream()
            own.record(event)
            own.wait(event)
            context.enqueue(memory.bindings, own)
            own.synchronize()
            assert own.__cuda_stream__() == (0, own.handle)
            own.close()
    finally:
        del stream, event
        cuda.Context.pop()


@pytest.mark.parametrize("given", [None, 0, -3, "0", True, object()])
def test_a_missing_stream_is_an_error(engine, memory, given):
    with engine.create_context() as context, pytest.raises(rt.BindingError, match="default stream"):
        context.enqueue(memory.bindings, given)


def test_a_stream_that_is_being_captured_is_refused(engine, memory, gpu):
    import ctypes

    theirs = engine.create_stream()
    with engine.create_context() as context, engine.device.context as cuda:
        cuda.driver.begin_capture(theirs.handle, 1)
        borrowed = engine.device.adopt_stream(theirs.handle)
        with pytest.raises(rt.ContextBusyError, match="captured"):
            context.enqueue(memory.bindings, borrowed)
        graph = ctypes.c_void_p()
        cuda.driver.end_capture(theirs.handle, ctypes.byref(graph))
        cuda.driver.graph_destroy(graph)
        context.enqueue(memory.bindings, borrowed)
        borrowed.synchronize()
    assert np.array_equal(memory.result(), Y)


class CudaArray:
    """As other libraries hand over their device arrays."""

    def __init__(self, address, shape, typestr="<f4", strides=None, is_read_only=False):
        self.__cuda_array_interface__ = {
            "data": (address, is_read_only),
            "shape": shape,
            "typestr": typestr,
            "strides": strides,
            "version": 3,
        }


def test_the_callers_memory(engine, memory, gpu):
    import pycuda.driver as cuda

    context = engine.create_context()
    stream = engine.create_stream()
    with engine.device.context.pycuda("test") as driver:
        allocation = driver.mem_alloc(memory.y_bytes)
        pinned = driver.pagelocked_empty((1, 1000), np.float32, mem_flags=2)
    assert cuda is not None
    pinned[:] = 0
    outputs = [
        memory.y,
        (memory.y, 4000),
        CudaArray(memory.y, (1, 1000)),
        CudaArray(memory.y, (1, 1000), strides=(4000, 4)),
        allocation,
        pinned,
    ]
    for output in outputs:
        engine.device.write(memory.y, bytes(memory.y_bytes))
        context.enqueue(
            {"x": CudaArray(memory.x, (1, 1000), is_read_only=True), "y": output}, stream
        )
        stream.synchronize()
        if output is pinned:
            assert np.array_equal(pinned, Y)
        elif output is allocation:
            assert engine.device.read(int(allocation), 4000) == Y.tobytes()
        else:
            assert np.array_equal(memory.result(), Y)
    context.close()
    stream.close()
    with engine.device.context.pycuda("test"):
        allocation.free()
        pinned.base.free()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda a: CudaArray(a, (1, 999)), "3,996 bytes"),
        (lambda a: CudaArray(a, (1, 2000), "<f2"), "elements are f16"),
        (lambda a: CudaArray(a, (1, 1000), strides=(8000, 8)), "not C-contiguous"),
        (lambda a: CudaArray(a, (1, 1000), is_read_only=True), "read-only"),
        (lambda a: np.zeros((1, 1000), np.float32), "pageable host memory"),
        (lambda a: (a, 100), "100 bytes only"),
        (lambda a: a + 2, "not a positive multiple of 4"),
        (lambda a: "y", "got str"),
    ],
)
def test_memory_that_does_not_fit_is_refused(engine, memory, make, text):
    context, stream = engine.create_context(), engine.create_stream()
    with pytest.raises(rt.BindingError, match=text):
        context.enqueue({"x": memory.x, "y": make(memory.y)}, stream)
    stream.close()
    context.close()


def test_sizes_and_memory_of_the_caller(plan_data, gpu):
    data = plan_data()
    device = CudaDevice(0)
    gc.collect()
    used = gpu.used_bytes()
    weights, arena = device.allocate(8, 256), device.allocate(12224, 256)
    with rt.load(data, device=device, weights_memory=(weights, 8), canary=False) as engine:
        assert engine.weights_bytes == 8
        assert engine.context_bytes() == 12224
        config_used = gpu.used_bytes()
        with engine.create_context(arena=CudaArray(arena, (12224,), "|u1")) as context:
            assert gpu.used_bytes() == config_used
            memory = Memory(device)
            stream = engine.create_stream()
            context.enqueue(memory.bindings, stream)
            stream.close()
            assert np.array_equal(memory.result(), Y)
            memory.free()
        with pytest.raises(rt.MemoryRegionError, match="12,224 are needed"):
            engine.create_context(arena=(arena, 12000))
    with pytest.raises(rt.MemoryRegionError, match="8 are needed"):
        rt.load(data, device=device, weights_memory=(weights, 4))
    device.free(weights)
    device.free(arena)
    assert gpu.used_bytes() == used


def test_the_first_context_shares_an_allocation_with_the_weights(plan_data, gpu):
    with rt.load(plan_data()) as engine:
        gc.collect()
        used, blocks = gpu.used_bytes(), gpu.live("memory")
        with engine.create_context() as first, engine.create_context() as second:
            assert gpu.live("memory") == blocks + 1
            assert gpu.used_bytes() == used + engine.context_bytes()
            for context in (first, second, first):
                assert np.array_equal(context.execute({"x": X})["y"], Y)
        assert (gpu.used_bytes(), gpu.live("memory")) == (used, blocks)
        with engine.create_context(arena=engine.device.allocate(20_000, 256)) as context:
            assert gpu.live("memory") == blocks + 1
            assert np.array_equal(context.execute({"x": X})["y"], Y)


def test_an_allocator_is_asked_for_everything(plan_data):
    device = CudaDevice(0)
    asked = []

    class Allocator:
        def allocate(self, nbytes, alignment):
            asked.append(nbytes)
            return device.allocate(nbytes, alignment)

        def free(self, address):
            asked.append(-1)
            device.free(address)

    config = rt.RuntimeConfig(allocator=Allocator())
    with (
        rt.load(plan_data(), device=device, config=config) as engine,
        engine.create_context() as context,
    ):
        assert np.array_equal(context.execute({"x": X})["y"], Y)
    assert asked[0] == 8  # weights
    assert 12224 in asked
    assert sum(1 for nbytes in asked if nbytes > 0) == asked.count(-1)


def test_large_weights_travel_through_page_locked_memory(plan_data, gpu):
    first = np.random.default_rng(3).bytes(9 << 20)
    with rt.load(plan_data(first_weights=first)) as engine:
        assert gpu.live("host memory") == 0
        assert engine.device.read(engine._weights_address, len(first)) == first
        with engine.create_context() as context:
            assert np.array_equal(context.execute({"x": X})["y"], Y)


def test_integrated_gpus_work_in_host_memory(gpu, plan_data):
    gpu.set_attribute(0, 18, 1)
    with rt.load(plan_data()) as engine:
        assert engine.fingerprint.fields["cuda.is_integrated"] == "1"
        with engine.create_context() as context:
            copies = gpu.calls("cuMemcpyHtoDAsync"), gpu.calls("cuMemcpyDtoHAsync")
            assert np.array_equal(context.execute({"x": X})["y"], Y)
            assert np.array_equal(context.execute({"x": X + 2})["y"], expected(X + 2))
            assert (gpu.calls("cuMemcpyHtoDAsync"), gpu.calls("cuMemcpyDtoHAsync")) == copies
            assert gpu.live("host memory") == 1
        assert gpu.live("host memory") == 0


def test_two_threads_two_contexts_one_engine(engine):
    errors = []

    def work(seed):
        try:
            rng = np.random.default_rng(seed)
            with engine.create_context() as context, engine.create_stream() as stream:
                for _ in range(30):
                    x = rng.integers(-100, 100, (1, 1000)).astype(np.float32)
                    memory = Memory(engine.device, x)
                    context.enqueue(memory.bindings, stream)
                    stream.synchronize()
                    assert np.array_equal(memory.result(), expected(x))
                    memory.free()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_one_stream_used_by_two_contexts_in_two_threads(engine):
    errors = []
    with engine.create_stream() as stream:

        def work():
            try:
                with engine.create_context() as context:
                    memory = Memory(engine.device)
                    for _ in range(50):
                        context.enqueue(memory.bindings, stream)
                    stream.synchronize()
                    assert np.array_equal(memory.result(), Y)
                    memory.free()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not errors


def test_events_order_streams_and_measure(engine, memory):
    gate = Memory(engine.device, np.zeros((1, 1), np.float32), (1, 1))
    before, after = engine.create_event(), engine.create_event()
    assert before.query()
    assert before.time_us() == 0.0
    calls = []
    with (
        engine.create_context(profile="gate") as closed,
        engine.create_context() as context,
        engine.create_stream() as first,
        engine.create_stream() as second,
    ):
        first.record(before)
        closed.enqueue(gate.bindings, first)
        first.record(after)
        second.wait(after)
        context.enqueue(memory.bindings, second)
        second.call(lambda: calls.append(1))
        assert not after.query()
        assert not calls
        engine.device.write(gate.x, np.ones(1, np.float32).tobytes())
        second.synchronize()
        after.synchronize()
        assert after.query()
        assert calls == [1]
        assert after.elapsed_us(before) > 0
        assert after.time_us() >= before.time_us() > 0
    assert np.array_equal(memory.result(), Y)
    gate.free()


def test_nothing_is_left_behind(plan_data, gpu):
    gc.collect()
    with rt.load(plan_data()) as engine, engine.create_context() as context:
        context.execute({"x": X})
    del engine, context
    gc.collect()
    before = gpu.all_live()
    for is_closed in (True, False):
        engine = rt.load(plan_data())
        context, stream = engine.create_context(), engine.create_stream()
        event = engine.create_event()
        memory = Memory(engine.device)
        for _ in range(40):
            context.enqueue(memory.bindings, stream)
        stream.record(event)
        stream.synchronize()
        context.execute({"x": X})
        memory.free()
        if is_closed:
            stream.close()
            context.close()
            engine.close()
        del engine, context, stream, event, memory
        gc.collect()
        assert gpu.all_live() == before


def test_objects_may_die_in_another_thread(plan_data, gpu):
    gc.collect()
    before = gpu.all_live()
    kept = [rt.load(plan_data())]
    kept += [kept[0].create_context(), kept[0].create_stream()]
    kept[1].execute({"x": X})
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join()
    gc.collect()
    assert gpu.all_live() == before


def test_without_graphs_steps_are_launched_one_by_one(plan_data, gpu, caplog):
    gpu.fail("cuStreamBeginCapture", 801)
    caplog.set_level(logging.WARNING)
    with rt.load(plan_data(), canary=False) as engine, engine.create_context() as context:
        assert "graphs are refused" in caplog.text
        launches = gpu.calls("cuLaunchKernel") + gpu.calls("cuLaunchKernelEx")
        assert np.array_equal(context.execute({"x": X})["y"], Y)
        assert np.array_equal(context.execute({"x": X + 2})["y"], expected(X + 2))
        assert gpu.calls("cuLaunchKernel") + gpu.calls("cuLaunchKernelEx") == launches + 4


def test_the_gpu_that_fits_is_chosen(plan_data, gpu):
    gpu.set_num_devices(3)
    data = plan_data()
    gpu.set_attribute(0, 76, 6)
    with rt.load(data) as engine:
        assert engine.device.ordinal == 1
        assert engine.create_context().execute({"x": X})["y"][0, 0] == Y[0, 0]
    with rt.load(data, device="cuda:2") as engine:
        assert engine.device.ordinal == 2
    with pytest.raises(FingerprintMismatchError, match="compute_capability"):
        rt.load(data, device="cuda:0")
    with pytest.raises(ValueError, match="cuda:N"):
        rt.load(data, device="gpu")
    with pytest.raises(rt.DeviceError, match=r"GPU 7 .*CUDA_ERROR_INVALID_DEVICE \(101\)"):
        rt.load(data, device="cuda:7")


def test_a_plan_with_both_kinds_runs_where_there_is_a_fitting_gpu(gpu, plan_data):
    from dataclasses import replace

    from support import tiny_plans

    from planformat.reader import read_plan
    from planformat.writer import plan_bytes

    cuda_plan = read_plan(plan_data())
    cpu_plan = tiny_plans.plan(canary=False)
    variants = tuple(
        replace(variant, profiles=variant.profiles[:1])
        for variant in (cpu_plan.variants[0], cuda_plan.variants[0])
    )
    data = plan_bytes(replace(cpu_plan, variants=variants))
    assert rt.load(data).device.kind == "cuda"
    assert rt.load(data, device="cpu").device.kind == "cpu"
    gpu.set_attribute(0, 16, 99)
    assert rt.load(data).device.kind == "cpu"


def test_fingerprint_difference_is_told_field_by_field(plan_data, gpu):
    from runtime_edge.device.cuda_probe import probe_gpu

    fields = {**probe_gpu(0).fields, "cuda.num_sms": "14"}
    data = plan_data(fingerprint=DeviceFingerprint("cuda", fields))
    with pytest.raises(FingerprintMismatchError, match=r"cuda.num_sms: the plan has '14'"):
        rt.load(data)
    assert rt.load(data, allow=["cuda.num_sms"]).device.kind == "cuda"


def test_strict_mode_needs_the_callers_memory(plan_data):
    with rt.load(plan_data(), config=rt.RuntimeConfig(strict=True)) as engine:
        with pytest.raises(rt.StrictModeError):
            engine.create_context()
        device = engine.device
        arena = device.allocate(engine.context_bytes(), 256)
        context = engine.create_context(arena=arena)
        with pytest.raises(rt.StrictModeError, match="device memory"):
            context.execute({"x": X}, {"y": np.empty_like(Y)})
        context.close()
        device.free(arena)
