"""The stand-in GPU, with the stand-in pycuda and, where it is installed, the real one."""

from __future__ import annotations

import importlib
import importlib.util
import sys

import pytest
from support import cuda_plans, fake_libcuda

from planformat.writer import plan_bytes

PYCUDAS = ["stand-in pycuda"]
if importlib.util.find_spec("pycuda") is not None:
    PYCUDAS.append("installed pycuda")


@pytest.fixture(scope="session", params=PYCUDAS)
def _gpu(request):
    """The stand-in libcuda under a pycuda; loaded before anything else looks for libcuda."""
    fake = fake_libcuda.load()
    previous = {name: m for name, m in sys.modules.items() if name.split(".")[0] == "pycuda"}
    if request.param == "installed pycuda":
        for name in previous:
            del sys.modules[name]
    else:
        stand_in = importlib.import_module("support.fake_libcuda.pycuda_stand_in")
        sys.modules.update(stand_in.as_modules())
    from runtime_edge.device import cuda_context

    cuda_context._contexts.clear()
    yield fake
    cuda_context._contexts.clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "pycuda"]:
        del sys.modules[name]
    sys.modules.update(previous)


@pytest.fixture
def gpu(_gpu):
    """Controls of the stand-in GPU, as it is at first."""
    _gpu.reset()
    yield _gpu
    _gpu.reset()


@pytest.fixture
def plan_data(gpu):
    """A function that makes the bytes of a plan of `cuda_plans` for the stand-in GPU."""
    from runtime_edge.device.cuda_probe import probe_gpu

    code = fake_libcuda.compile_kernels(cuda_plans.HOST_KERNELS)

    def make(**options):
        options = {"architecture": "sm_87", **options}
        fingerprint = options.pop("fingerprint", None) or probe_gpu(0)
        return plan_bytes(cuda_plans.plan(options.pop("code", code), fingerprint, **options))

    return make
