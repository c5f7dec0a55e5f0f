"""The agent of a board with a GPU, on the stand-in driver: probe, candidates, faults, plans."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from support import cuda_plans, fake_libcuda
from support.agents import AgentProcess

from boards.deploy import deploy
from boards.link.file_transfer import BoardLink
from builder_host.kernels.family import GridLaunch
from builder_host.measure.base import MeasureJob
from builder_host.measure.remote import BoardOptions, RemoteBoards
from planformat.writer import save_plan

# Python runs this at the start of the agent and of each child: as if a driver were installed.
SITE = """
import sys
from support import fake_libcuda
fake_libcuda.load()
from support.fake_libcuda import pycuda_stand_in
sys.modules.update(pycuda_stand_in.as_modules())
"""
KERNELS = """
EP_HOST_KERNEL(good, 1) { (void)launch; ((float *)EP_POINTER(0))[0] += 1; }
EP_HOST_KERNEL(faults, 1) { (void)params; launch->fault(700); }
EP_HOST_KERNEL(crashes, 1) { (void)launch, (void)params; *(volatile int *)16 = 1; }
"""


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu-board")
    (folder / "sitecustomize.py").write_text(SITE)
    fake_libcuda.library_path()
    paths = [str(folder), *(path for path in sys.path if path)]
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    try:
        with AgentProcess(folder / "store") as process:
            yield process
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@pytest.fixture
def boards(agent):
    made = RemoteBoards([agent.address], BoardOptions(), lambda *_: None)
    made.prepare(flush_bytes=0, support=b"")
    yield made
    made.close()


def candidate(path: Path, symbol: str) -> MeasureJob:
    launch = GridLaunch(symbol, (1, 1, 1), (32, 1, 1))
    return MeasureJob(str(path), (launch,), (256,), 0)


def test_the_gpu_is_chosen_and_probed(boards):
    assert boards.device == "cuda:0"
    assert boards.fingerprint.device_kind == "cuda"
    assert boards.fingerprint.fields["cuda.name"] == fake_libcuda.NAME
    assert boards.fingerprint.fields["cuda.compute_capability"] == "8.7"
    assert boards.fingerprint.fields["cuda.num_sms"] == "16"


def test_a_fault_spoils_one_candidate_and_not_those_after_it(boards, tmp_path):
    path = tmp_path / "kernels.so"
    path.write_bytes(fake_libcuda.compile_kernels(KERNELS))
    names = ("good", "faults", "good", "crashes", "good")
    timings = boards.measure([candidate(path, name) for name in names], 1)
    assert [timing.median_us is not None for timing in timings] == [True, False, True, False, True]
    assert "ILLEGAL_ADDRESS" in timings[1].error
    assert "SIGSEGV" in timings[3].error


def test_a_plan_for_the_gpu_is_deployed(agent, boards, tmp_path):
    code = fake_libcuda.compile_kernels(cuda_plans.HOST_KERNELS)
    plan = cuda_plans.plan(code, boards.fingerprint, architecture="sm_87")
    save_plan(plan, tmp_path / "m.plan")
    with BoardLink(agent.address) as link:
        done = deploy(link, tmp_path / "m.plan", "net", is_activated=True)
    assert "canary" in done.steps
    assert done.is_active
