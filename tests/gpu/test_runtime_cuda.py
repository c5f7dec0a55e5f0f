"""The CUDA runtime on a real GPU: python -m pytest -m gpu tests/gpu (needs pycuda and nvcc)."""

from __future__ import annotations

import ctypes
import statistics
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from support import cuda_plans
from support.cuda_compile import compile_cubin

import runtime_edge as rt
from planformat.writer import plan_bytes
from runtime_edge.device.cuda import CudaDevice
from runtime_edge.device.cuda_driver import CudaError
from runtime_edge.device.cuda_probe import probe_gpu
from runtime_edge.device.cuda_timing import CudaModule, CudaTimer, TimedCudaLaunch

pytestmark = pytest.mark.gpu

X = np.linspace(-1, 1, 1000, dtype=np.float32).reshape(1, 1000)
MIB = 1 << 20


def expected(x):
    return x * np.float32(cuda_plans.SCALE) + np.float32(cuda_plans.SHIFT)


@pytest.fixture(scope="session")
def architecture():
    capability = probe_gpu(0).fields["cuda.compute_capability"].replace(".", "")
    return capability + ("a" if int(capability) >= 90 else "")


@pytest.fixture(scope="session")
def make_plan(architecture):
    def make(**options):
        code = compile_cubin(cuda_plans.CUDA_KERNELS, options.pop("compiled_for", architecture))
        options = {"architecture": f"sm_{architecture}", **options}
        return plan_bytes(cuda_plans.plan(code, probe_gpu(0), **options))

    return make


@pytest.fixture(scope="session")
def engine(make_plan):
    with rt.load(make_plan()) as loaded:
        yield loaded


class Memory:
    """Device memory for both bindings."""

    def __init__(self, device, x=X, num_outputs=1000):
        self.device = device
        self.num_outputs = num_outputs
        self.x, self.y = device.allocate(x.nbytes, 256), device.allocate(4 * num_outputs, 256)
        device.write(self.x, np.ascontiguousarray(x).tobytes())
        device.write(self.y, b"\xff" * (4 * num_outputs))
        self.bindings = {"x": self.x, "y": self.y}

    def result(self):
        return np.frombuffer(self.device.read(self.y, 4 * self.num_outputs), np.float32)[None]

    def free(self):
        self.device.free(self.x)
        self.device.free(self.y)


def test_probe():
    fields = probe_gpu(0).fields
    print(fields)
    for name in ("name", "num_sms", "l2_bytes", "memory_bytes", "driver_version", "cuda_version"):
        assert fields[f"cuda.{name}"]


def test_canary_and_execute(engine):
    assert engine.canary_report.num_compared == 100
    with engine.create_context() as context:
        assert context._program.is_graph
        for shift in range(3):
            assert np.array_equal(context.execute({"x": X + shift})["y"], expected(X + shift))


def test_dependent_launches_stay_programmatic_edges(engine):
    with engine.create_context() as context, engine.device.context as gpu:
        graph = next(h for name, h in context._program._owned._items if name == "graph_destroy")
        edges = gpu.driver._library.cuGraphGetEdges_v2
        num = ctypes.c_size_t()
        assert edges(ctypes.c_void_p(graph), None, None, None, ctypes.byref(num)) == 0
        assert num.value == 1
        starts, ends = (ctypes.c_void_p * 1)(), (ctypes.c_void_p * 1)()
        data = (ctypes.c_ubyte * 8)()  # from_port, to_port, type, reserved
        assert edges(ctypes.c_void_p(graph), starts, ends, data, ctypes.byref(num)) == 0
        is_programmatic = data[2] == 1
        is_hopper = engine.fingerprint.fields["cuda.compute_capability"] >= "9.0"
        assert is_programmatic == is_hopper


def test_rebinding_while_earlier_runs_are_under_way(make_plan):
    with rt.load(make_plan(num_pairs=20)) as engine:
        memories = [Memory(engine.device, X + i) for i in range(16)]
        with engine.create_context() as context, engine.create_stream() as stream:
            for _ in range(20):
                for memory in memories:
                    context.enqueue(memory.bindings, stream)
            stream.synchronize()
            for i, memory in enumerate(memories):
                value = X + i
                for _ in range(20):
                    value = expected(value)
                np.testing.assert_allclose(memory.result(), value, rtol=20 * 2**-23)
                memory.free()


def test_clusters_survive_rebinding(engine):
    rng = np.random.default_rng(1)
    with engine.create_context(profile="sum") as context:
        for _ in range(3):
            x = rng.integers(-8, 8, (1, 1024)).astype(np.float32)
            memory = Memory(engine.device, x, 4)
            stream = engine.create_stream()
            context.enqueue(memory.bindings, stream)
            stream.close()
            assert np.array_equal(memory.result(), x.reshape(4, 256).sum(1)[None])
            memory.free()


def test_large_shared_memory(engine):
    with engine.create_context(profile="reverse") as context:
        assert np.array_equal(context.execute({"x": X})["y"], X[:, ::-1])


def test_streams_and_arrays_of_torch(engine):
    torch = pytest.importorskip("torch")
    x = torch.linspace(-2, 2, 1000, device="cuda").reshape(1, 1000)
    y = torch.full((1, 1000), -1.0, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with engine.create_context() as context:
        context.enqueue({"x": x, "y": y}, stream.cuda_stream)
        with torch.cuda.stream(stream):
            doubled = y * 2
        stream.synchronize()
    assert torch.equal(doubled, (x * 0.5 + 3) * 2)


def test_streams_and_memory_of_pycuda(engine):
    cuda = pytest.importorskip("pycuda.driver")
    context = cuda.Device(0).retain_primary_context()
    context.push()
    try:
        stream, x = cuda.Stream(), cuda.mem_alloc(X.nbytes)
        y = cuda.pagelocked_empty((1, 1000), np.float32, mem_flags=2)
        cuda.memcpy_htod(x, X)
        with engine.create_context() as execution:
            execution.enqueue({"x": x, "y": y}, stream)
            stream.synchronize()
        assert np.array_equal(y, expected(X))
        del stream, x, y
    finally:
        cuda.Context.pop()


def test_gate_in_page_locked_memory_holds_a_stream_back(engine):
    with engine.device.context.pycuda("test") as cuda:
        flag = cuda.pagelocked_empty((1, 1), np.float32, mem_flags=2)
    flag[:] = 0
    memory = Memory(engine.device)
    after = engine.create_event()
    out = Memory(engine.device, np.zeros((1, 1), np.float32), 1)
    with (
        engine.create_context(profile="gate") as gate,
        engine.create_context() as context,
        engine.create_stream() as first,
        engine.create_stream() as second,
    ):
        gate.enqueue({"x": flag, "y": out.y}, first)
        first.record(after)
        second.wait(after)
        context.enqueue(memory.bindings, second)
        assert not after.query()
        with pytest.raises(rt.ContextBusyError):
            context.enqueue(memory.bindings, first)
        flag[0, 0] = 7
        second.synchronize()
        assert after.query()
        assert after.time_us() > 0
    assert np.array_equal(memory.result(), expected(X))
    assert out.result()[0, 0] == 7
    memory.free()
    out.free()
    with engine.device.context.pycuda("test"):
        flag.base.free()


def test_two_threads_two_streams_one_engine(engine):
    errors = []

    def work(seed):
        try:
            rng = np.random.default_rng(seed)
            with engine.create_context() as context, engine.create_stream() as stream:
                for _ in range(200):
                    x = rng.integers(-100, 100, (1, 1000)).astype(np.float32)
                    memory = Memory(engine.device, x)
                    context.enqueue(memory.bindings, stream)
                    stream.synchronize()
                    assert np.array_equal(memory.result(), expected(x))
                    memory.free()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_memory_stays_flat_over_many_inferences(engine):
    memories = [Memory(engine.device), Memory(engine.device)]
    with engine.create_context() as context, engine.create_stream() as stream:
        for memory in memories:
            context.enqueue(memory.bindings, stream)
        stream.synchronize()
        free, _ = engine.device.free_memory()
        for number in range(100_000):
            context.enqueue(memories[number >> 4 & 1].bindings, stream)
        stream.synchronize()
        assert engine.device.free_memory()[0] == free
    for memory in memories:
        assert np.array_equal(memory.result(), expected(X))
        memory.free()


def test_enqueue_costs_little_host_time(make_plan):
    with rt.load(make_plan(num_pairs=27)) as engine:
        memories = [Memory(engine.device), Memory(engine.device)]
        with engine.create_context() as context, engine.create_stream() as stream:
            for name, step in (("same bindings", 0), ("rebound every time", 1)):
                times = []
                for number in range(2000):
                    bindings = memories[number * step & 1].bindings
                    start = time.perf_counter_ns()
                    context.enqueue(bindings, stream)
                    times.append(time.perf_counter_ns() - start)
                    if number % 8 == 7:
                        stream.synchronize()
                median = statistics.median(times) / 1000
                print(f"enqueue of 54 steps, {name}: {median:.1f} µs of host time")
                assert median <= 40
        for memory in memories:
            memory.free()


def test_steps_are_timed(engine):
    memory = Memory(engine.device)
    with engine.create_context() as context:
        times = context.measure_steps(memory.bindings, repeats=50)
    print([(t.name, round(t.time_us, 2)) for t in times])
    assert all(0.1 < t.time_us < 100 for t in times)
    memory.free()


def test_device_memory_is_weights_arena_and_little_more(make_plan):
    weights = np.random.default_rng(2).bytes(48 * MIB + 700 * 1024)
    data = make_plan(first_weights=weights, canary=False, num_pairs=27)
    device = CudaDevice(0)
    free, _ = device.free_memory()
    with rt.load(data, device=device) as engine:
        loaded, _ = device.free_memory()
        with engine.create_context() as context, engine.create_stream() as stream:
            memory = Memory(device)
            context.enqueue(memory.bindings, stream)
            stream.synchronize()
            running, _ = device.free_memory()
            planned = engine.weights_bytes + engine.context_bytes() + 2 * X.nbytes
            extra = free - running - planned
            print(f"beyond weights, arena and bindings: {extra / MIB:.2f} MiB")
            print(
                f"loaded {(free - loaded) / MIB:.2f} MiB, running {(free - running) / MIB:.2f} MiB"
            )
            assert extra <= 2 * MIB
            memory.free()


def test_loading_is_fast_once_the_context_exists(make_plan):
    data = make_plan(first_weights=bytes(50 * MIB), num_pairs=27)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        engine = rt.load(data)
        context = engine.create_context()
        times.append((time.perf_counter() - start) * 1000)
        context.close()
        engine.close()
    print("load with 50 MiB of weights and 54 steps: ms", [round(t, 1) for t in times])
    assert min(times) < 150


def test_timer(engine, architecture):
    device = engine.device
    module = CudaModule(device, compile_cubin(cuda_plans.CUDA_KERNELS, architecture))
    memory = Memory(device)
    weights = device.allocate(8, 256)
    device.write(weights, np.array([2, 0], np.float32).tobytes())
    arguments = (memory.x, weights, memory.y, 1000)
    launch = TimedCudaLaunch(module.function("scale"), arguments, (8, 1, 1), (128, 1, 1))
    dependent = TimedCudaLaunch(
        module.function("scale"), arguments, (8, 1, 1), (128, 1, 1), is_dependent_launch=True
    )
    timers = {
        "plain": CudaTimer(module, [launch]),
        "dependent": CudaTimer(module, [dependent]),
        "flushed": CudaTimer(module, [launch], is_flushing=True),
    }
    for name, timer in timers.items():
        timer.run()
        times = timer.measure(20)
        print(
            f"{name}: median {statistics.median(times):.3f} µs, {min(times):.3f}-{max(times):.3f}"
        )
        assert 0.2 < statistics.median(times) < 50
        timer.close()
    assert np.array_equal(memory.result(), X * 2)
    assert module.resources("scale")[0] > 0
    memory.free()
    device.free(weights)


def test_code_for_another_architecture_is_refused(make_plan, architecture):
    other = "80" if architecture != "80" else "75"
    with pytest.raises(rt.LoadError, match=f"for sm_{other}, GPU 0 runs a CUBIN"):
        rt.load(make_plan(architecture=f"sm_{other}"))


def test_the_drivers_refusal_is_explained(make_plan):
    from support.cuda_compile import compile_cubin as compile_it

    source = 'extern "C" __global__ void k() {}'
    device = CudaDevice(0)
    with pytest.raises(rt.LoadError, match=r"CUDA_ERROR_NO_BINARY_FOR_GPU \(209\).*rebuild"):
        CudaModule(device, compile_it(source, "80"))
    with pytest.raises(rt.LoadError, match=r"CUDA_ERROR_\w+ \(\d+\)"):
        CudaModule(device, b"\x7fELF" + bytes(2000))
    ptx = ".version 99.0\n.target sm_90\n.address_size 64\n"
    with pytest.raises(rt.LoadError, match="the driver's compiler says"):
        CudaModule(device, ptx.encode())


def test_more_memory_than_there_is(engine):
    with pytest.raises(CudaError, match=r"CUDA_ERROR_OUT_OF_MEMORY \(2\).*bytes free"):
        engine.device.allocate(1 << 43, 256)


FAULT = """
import sys
import numpy as np
import runtime_edge as rt
from runtime_edge.device.cuda_driver import CudaError

data = open(sys.argv[1], "rb").read()
engine = rt.load(data)
context, stream = engine.create_context(profile="fault"), engine.create_stream()
good = engine.create_context()
x, y = engine.device.allocate(4, 256), engine.device.allocate(4, 256)
context.enqueue({"x": x, "y": y}, stream)
try:
    stream.synchronize()
except CudaError as error:
    assert error.is_fatal and error.code == 700, error
    print(error)
try:
    good.execute({"x": np.zeros((1, 1000), np.float32)})
except CudaError as error:
    print(error.code)
for thing in (context, good, stream):
    try:
        thing.close()
    except CudaError as error:
        print("close:", error.code)
engine.close()
try:
    rt.load(data)
except (rt.LoadError, rt.DeviceError) as error:
    print("load:", error)
print("the process lives")
"""


def test_an_illegal_address_is_explained_and_the_process_lives(make_plan, tmp_path):
    path = tmp_path / "fault.plan"
    path.write_bytes(make_plan())
    command = [sys.executable, "-c", FAULT, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    print(done.stdout, done.stderr[-3000:])
    assert "CUDA_ERROR_ILLEGAL_ADDRESS (700): a kernel read or wrote memory" in done.stdout
    assert "restart the process" in done.stdout.partition("load:")[2]
    assert "the process lives" in done.stdout
    assert done.returncode == 0
