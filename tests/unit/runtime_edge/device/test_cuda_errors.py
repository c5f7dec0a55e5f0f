"""Errors of the CUDA device: code, name, meaning, what to do; and the process lives on."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys

import numpy as np
import pytest
from support import fake_libcuda

import runtime_edge as rt
from planformat.plan import CodeKind
from runtime_edge.device import cuda_codes, cuda_driver
from runtime_edge.device.cuda_driver import CudaError, Driver

X = np.ones((1, 1000), np.float32)


def elf(machine: int) -> bytes:
    """Head of an ELF file for a machine; 190 is CUDA."""
    head = bytearray(200)
    head[:4] = b"\x7fELF"
    head[18] = machine
    return bytes(head)


def test_a_cubin_for_another_architecture(plan_data):
    with pytest.raises(rt.LoadError, match=r"code object 0: is a CUBIN for sm_90a, GPU 0 runs a "):
        rt.load(plan_data(architecture="sm_90a"))


def test_what_the_driver_says_about_a_cubin(plan_data):
    data = plan_data(code=elf(190), toolchain="nvrtc 13.0.88")
    with pytest.raises(rt.LoadError) as caught:
        rt.load(data)
    text = str(caught.value)
    assert "CUBIN for sm_87, made by nvrtc 13.0.88" in text
    assert "a driver for CUDA 12.6" in text
    assert "CUDA_ERROR_NO_BINARY_FOR_GPU (209): the code was compiled for another GPU" in text
    assert "rebuild with an older toolkit or update the driver" in text


def test_a_damaged_cubin(plan_data):
    with pytest.raises(rt.LoadError, match=r"CUDA_ERROR_INVALID_IMAGE \(200\)"):
        rt.load(plan_data(code=b"\0" * 100))


def test_the_compilers_log_is_shown(plan_data):
    data = plan_data(code=b".version 9.0\n", kind=CodeKind.PTX)
    with pytest.raises(rt.LoadError, match="the driver's compiler says: ptxas fatal: there is no"):
        rt.load(data)


def test_a_missing_kernel(plan_data):
    code = fake_libcuda.compile_kernels("EP_HOST_KERNEL(other, 1) { (void)launch, (void)params; }")
    with pytest.raises(rt.LoadError, match=r"kernel 'scale': .*NOT_FOUND \(500\).*build it again"):
        rt.load(plan_data(code=code))


def test_a_kernel_with_other_parameters(plan_data):
    names = ("scale", "shift", "cluster_sum", "reverse", "gate", "fault")
    source = "\n".join(f"EP_HOST_KERNEL({n}, 2) {{ (void)launch, (void)params; }}" for n in names)
    code = fake_libcuda.compile_kernels(source)
    with pytest.raises(rt.LoadError, match="step 'scale0': 4 arguments go to a kernel with 2"):
        rt.load(plan_data(code=code))


def test_out_of_memory_tells_what_is_free(plan_data, gpu):
    with rt.load(plan_data()) as engine:
        gpu.set_memory(gpu.used_bytes() + 10_000)
        first = engine.create_context()  # its memory came with the weights
        with pytest.raises(CudaError) as caught:
            engine.create_context()
        text = str(caught.value)
        assert caught.value.code == 2
        assert "12,224 bytes of device memory" in text
        assert "CUDA_ERROR_OUT_OF_MEMORY (2): not enough free device memory; close other" in text
        assert "has 10,000 of" in text
        gpu.reset()
        first.close()
        with engine.create_context() as context:
            assert context.execute({"x": X})["y"][0, 0] == 3.5


def test_a_launch_that_the_gpu_cannot_do_names_the_step(plan_data, gpu):
    with rt.load(plan_data()) as engine:
        gpu.set_attribute(0, 97, 64 << 10)
        with pytest.raises(CudaError, match=r"step 'reverse' \(98,304 bytes of shared memory"):
            engine.create_context(profile="reverse")
        gpu.fail("cuLaunchKernelEx", 912)
        with pytest.raises(
            CudaError, match=r"step 'sum' \(grid \(16, 1, 1\), .*INVALID_CLUSTER_SIZE \(912\)"
        ):
            engine.create_context(profile="sum")
        with engine.create_context() as context:
            assert context.execute({"x": X})["y"][0, 0] == 3.5


def test_a_refused_allocation_leaves_nothing_behind(plan_data, gpu):
    with rt.load(plan_data()) as engine:
        gc.collect()
        before = gpu.all_live()
        for name in ("cuStreamCreate", "cuGraphInstantiate", "cuStreamBeginCapture"):
            gpu.fail(name, 2)
            with pytest.raises(CudaError, match=r"OUT_OF_MEMORY \(2\)"):
                engine.create_context()
            assert gpu.all_live() == before


def test_a_failed_update_is_repeated(plan_data, gpu):
    with rt.load(plan_data()) as engine, engine.create_context() as context:
        gpu.fail("cuGraphExecKernelNodeSetParams", 999, after=1)
        with pytest.raises(CudaError, match=r"CUDA_ERROR_UNKNOWN \(999\)"):
            context.execute({"x": X})
        assert context.execute({"x": X})["y"][0, 0] == 3.5


FAULT = """
import sys, warnings
warnings.simplefilter("error")
sys.path[:0] = sys.argv[2:]
from support import fake_libcuda
fake = fake_libcuda.load()
if "stand-in" in sys.argv[1]:
    from support.fake_libcuda import pycuda_stand_in
    sys.modules.update(pycuda_stand_in.as_modules())
import numpy as np
from support import cuda_plans
import runtime_edge as rt
from planformat.writer import plan_bytes
from runtime_edge.device.cuda_driver import CudaError
from runtime_edge.device.cuda_probe import probe_gpu

code = fake_libcuda.compile_kernels(cuda_plans.HOST_KERNELS)
engine = rt.load(plan_bytes(cuda_plans.plan(code, probe_gpu(0), architecture="sm_87")))
context, stream = engine.create_context(profile="fault"), engine.create_stream()
x, y = engine.device.allocate(4, 256), engine.device.allocate(4, 256)
def enqueue():
    context.enqueue({"x": x, "y": y}, stream)
    stream.synchronize()
for attempt in (enqueue, lambda: engine.create_context(), context.close, stream.close):
    try:
        attempt()
    except CudaError as error:
        print(error.is_fatal, error)
engine.device.free(x)
engine.device.free(y)
engine.close()
print("alive")
"""


def test_an_illegal_address_in_a_kernel(gpu, request):
    kind = request.node.callspec.params["_gpu"]
    paths = [path for path in sys.path if path]
    command = [sys.executable, "-c", FAULT, kind, *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "alive", done.stderr
    assert lines[0].startswith("True cu")
    assert (
        "CUDA_ERROR_ILLEGAL_ADDRESS (700): a kernel read or wrote memory that is not allocated; "
        "check binding addresses"
    ) in lines[0]
    assert "restart the process" in lines[0]
    assert "PyCUDA" not in done.stderr


NOTHING = """
import sys
sys.path[:0] = sys.argv[1:]
import runtime_edge as rt
from runtime_edge.device import cuda_driver
cuda_driver.LIBRARY = "libcuda-that-is-not-there.so"
from planformat.fingerprint import DeviceFingerprint
from planformat.writer import plan_bytes
from support import cuda_plans
data = plan_bytes(cuda_plans.plan(b"x", DeviceFingerprint("cuda", {}), architecture="sm_87"))
try:
    rt.load(data)
except rt.LoadError as error:
    print(error)
"""


def run_without(code: str) -> str:
    command = [sys.executable, "-c", code, *(path for path in sys.path if path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_driver():
    text = run_without(NOTHING)
    assert "has code for cuda only" in text
    assert "no CUDA driver" in text
    assert "--gpus all" in text


def test_no_pycuda():
    code = NOTHING.replace(
        'cuda_driver.LIBRARY = "libcuda-that-is-not-there.so"',
        "from support import fake_libcuda\nfake_libcuda.load()\n"
        "sys.modules['pycuda.driver'] = None",
    )
    assert "pip install 'edgeplan[cuda]'" in run_without(code)


def test_no_gpu_in_the_driver():
    code = NOTHING.replace(
        'cuda_driver.LIBRARY = "libcuda-that-is-not-there.so"',
        "from support import fake_libcuda\nfake_libcuda.load().set_num_devices(0)",
    )
    assert "CUDA_ERROR_NO_DEVICE (100): the driver sees no GPU" in run_without(code)


class OldLibrary:
    """The stand-in without some functions."""

    def __init__(self, *missing: str) -> None:
        self.missing = missing

    def __getattr__(self, name: str):
        if name in self.missing:
            raise AttributeError(name)
        return getattr(fake_libcuda.load().library, name)


def test_functions_that_a_driver_lacks(gpu):
    gpu.set_version(11, 4)
    driver = Driver(OldLibrary("cuLaunchKernelEx", "cuStreamGetCaptureInfo_v3"))
    assert driver.version() == (11, 4)
    assert not driver.has("launch_ex")
    assert driver.has("launch", "capture_info_v2")
    with pytest.raises(
        rt.DeviceError, match=r"CUDA 11.4\) has no cuLaunchKernelEx, which came with CUDA 11.8"
    ):
        driver.launch_ex(None, None, None, None)
    with pytest.raises(AttributeError):
        driver.no_such_function  # noqa: B018


@pytest.mark.parametrize("missing", ["cuLaunchKernelEx", "cuStreamGetCaptureInfo_v3"])
def test_old_drivers_run_what_they_can(plan_data, gpu, monkeypatch, missing):
    from runtime_edge.device import cuda_context

    monkeypatch.setattr(cuda_context, "_contexts", {})
    old = Driver(OldLibrary(missing))
    monkeypatch.setattr(cuda_context, "open_driver", lambda: old)
    with rt.load(plan_data()) as engine:
        with engine.create_context() as context:
            assert context.execute({"x": X})["y"][0, 0] == 3.5
        if missing == "cuLaunchKernelEx":
            with pytest.raises(rt.LoadError, match="step 'sum' is launched as clusters of"):
                engine.create_context(profile="sum")


def test_every_code_has_a_name_a_meaning_and_an_advice(gpu):
    for number, code in cuda_codes.CODES.items():
        assert code.name.startswith("CUDA_ERROR_"), number
        assert code.meaning
        assert code.what_to_do
    names = [code.name for code in cuda_codes.CODES.values()]
    assert len(set(names)) == len(names)
    assert set(cuda_codes.CODES) >= cuda_codes.FATAL_CODES


def test_codes_without_an_entry_use_the_drivers_words(gpu):
    driver = cuda_driver.open_driver()
    assert driver.explain(915) == "CUDA_ERROR_MADE_UP (915): a code that no table has"
    assert "does not describe it" in driver.explain(12345)
    assert driver.code_of("cuMemAlloc failed: out of memory") == 2
    assert driver.code_of("cuMemAlloc failed: out of memory - and more") == 2
    assert driver.code_of("something else") == 999


def test_structures_have_the_drivers_sizes():
    assert ctypes.sizeof(cuda_driver.LaunchAttribute) == 72
    assert ctypes.sizeof(cuda_driver.LaunchConfig) == 56
    assert ctypes.sizeof(cuda_driver.KernelNodeParams) == 56
