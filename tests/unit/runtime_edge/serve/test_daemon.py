"""Parts of the daemon that need a device with faults: a failing execution, a lost device."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import time
import types
from dataclasses import replace

import pytest
from support.serve_plans import save, scale_plan

from runtime_edge.capture import CapturedError, read_capture
from runtime_edge.cli import main
from runtime_edge.errors import DeviceError
from runtime_edge.serve import daemon as daemon_module
from runtime_edge.serve import failure_captures, sensor_reader
from runtime_edge.serve.config import PlanConfig, ServeConfig
from runtime_edge.serve.daemon import Daemon
from runtime_edge.serve.deployment import Tensor
from runtime_edge.serve.devices import DeviceEntry
from runtime_edge.serve.failure_captures import MAX_CAPTURES
from runtime_edge.serve.infer_work import InferWork, WantedOutput
from runtime_edge.serve.sysfs import Sensor
from runtime_edge.systemd import Notifier


class Recorder(Notifier):
    def __init__(self):
        super().__init__({})
        self.sent = []

    def _send(self, text):
        self.sent.append(text)


def work_for(plan):
    deployment = plan.deployment
    (lane,) = deployment.lanes
    return InferWork(deployment, lane, 1, [Tensor(bytes(4000))], [WantedOutput(1, True)])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return str(save(scale_plan(), tmp_path_factory.mktemp("daemon") / "scale.plan"))


def run(path, scenario):
    async def main():
        recorder = Recorder()
        config = ServeConfig(plans=(PlanConfig("m", path),), http="127.0.0.1:0")
        daemon = Daemon(config, recorder)
        await daemon.start()
        try:
            return await scenario(daemon, recorder)
        finally:
            await daemon.stop()

    return asyncio.run(main())


async def answer_of(daemon, plan):
    done = asyncio.get_running_loop().create_future()
    daemon.service.submit(plan, work_for(plan), time.monotonic_ns(), done.set_result)
    return await asyncio.wait_for(done, 20)


def test_a_failed_execution_is_a_500_and_the_next_one_works(path):
    async def scenario(daemon, recorder):
        plan = daemon.repository.plans["m"]
        real = plan.deployment._run
        plan.deployment._run = raiser
        failed = await answer_of(daemon, plan)
        assert failed.error.status == 500
        assert "the kernel tripped" in str(failed.error)
        assert plan.statistics.failures["BACKEND"] == 1
        plan.deployment._run = real
        fine = await answer_of(daemon, plan)
        assert fine.error is None
        assert len(fine.outputs[0]) == 4000
        assert daemon.service.num_pending == 0
        assert not daemon._stopped.is_set()

    run(path, scenario)


def test_failed_executions_are_captured_and_can_be_replayed(path, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "failures"

    async def scenario(daemon, recorder):
        plan = daemon.repository.plans["m"]
        plan.deployment.config = replace(plan.deployment.config, capture_failures=str(folder))
        real = plan.deployment._run
        plan.deployment._run = raiser
        for _ in range(MAX_CAPTURES + 2):
            assert (await answer_of(daemon, plan)).error.status == 500
        plan.deployment._run = real
        folder.joinpath("m-0").rename(tmp_path / "one")
        folder.joinpath("m-1").rename(tmp_path / "two")
        tmp_path.joinpath("broken").write_text("no folder")
        plan.deployment.config = replace(
            plan.deployment.config, capture_failures=str(tmp_path / "broken")
        )
        plan.deployment._run = raiser
        assert (await answer_of(daemon, plan)).error.status == 500  # the disk's error harms nobody
        monkeypatch.setattr(failure_captures, "write_capture", exhausted)
        assert (await answer_of(daemon, plan)).error.status == 500  # nor does the memory's

    run(path, scenario)
    assert len(list(folder.iterdir())) == MAX_CAPTURES - 2
    capture = read_capture(tmp_path / "one")
    assert capture.error == CapturedError("DeviceError", "the kernel tripped")
    assert capture.plan.path == str(path)
    assert [(t.name, t.dtype, t.shape) for t in capture.inputs] == [("x", "float32", (1, 1000))]
    assert main(["replay", str(tmp_path / "one")]) == 3
    told = capsys.readouterr().out
    assert "then: DeviceError: the kernel tripped\nnow:  it goes well\nANOTHER outcome" in told


def raiser(*_):
    raise DeviceError("the kernel tripped")


def exhausted(*_):
    raise MemoryError


def test_a_lost_device_ends_the_process_through_the_service_manager(path):
    async def scenario(daemon, recorder):
        plan = daemon.repository.plans["m"]
        (entry,) = daemon.repository.devices.entries
        entry.device.context = types.SimpleNamespace(is_dead=True)
        plan.deployment._run = raiser
        await answer_of(daemon, plan)
        assert daemon._stopped.is_set()
        assert daemon._status == 71
        assert "WATCHDOG=trigger" in recorder.sent

    run(path, scenario)


def test_gpu_memory_has_tritons_names_and_a_lost_gpu_none(path):
    async def scenario(daemon, recorder):
        def lost():
            raise DeviceError("no GPU any more")

        for name, counters in (("cuda:0", lambda: (30, 100)), ("cuda:1", lost)):
            device = types.SimpleNamespace(kind="cuda", free_memory=counters)
            daemon.repository.devices.add(DeviceEntry(name, device, None, 100))
        text = daemon._exposition.text()
        assert 'nv_gpu_memory_total_bytes{gpu_uuid="cuda:0"} 100\n' in text
        assert 'nv_gpu_memory_used_bytes{gpu_uuid="cuda:0"} 70\n' in text
        assert 'gpu_uuid="cuda:1"' not in text
        assert 'edgeplan_device_memory_bytes{device="cuda:1",use="weights"} 0\n' in text

    run(path, scenario)


def test_a_missing_required_plan_keeps_the_daemon_starting_until_it_comes(path, tmp_path):
    late = tmp_path / "late.plan"
    recorder = Recorder()

    async def main():
        plans = (PlanConfig("m", path), PlanConfig("late", str(late)))
        daemon = Daemon(ServeConfig(plans=plans, http="127.0.0.1:0", watch_interval_s=0), recorder)
        await daemon.start()
        try:
            fine = await answer_of(daemon, daemon.repository.plans["m"])  # the other one serves
            assert fine.error is None
            daemon._wait_longer()
            assert recorder.sent[-1].startswith("EXTEND_TIMEOUT_USEC=")
            await reloaded(daemon)  # in vain: the manager must not take that for a start
            assert not {"READY=1", "RELOADING=1"} & {text.split("\n")[0] for text in recorder.sent}
            shutil.copy(path, late)
            await reloaded(daemon)
            assert recorder.sent.count("READY=1") == 1
            late.unlink()
            await reloaded(daemon)  # fails, and is over for the manager all the same
            kinds = [text.split("=")[0] for text in recorder.sent]
            assert kinds[-4:] == ["RELOADING", "STATUS", "READY", "STATUS"]
            before = len(recorder.sent)
            daemon._wait_longer()
            assert len(recorder.sent) == before
        finally:
            await daemon.stop()

    async def reloaded(daemon):
        daemon.reload(["late"])
        await asyncio.wait_for(asyncio.gather(*daemon._tasks), 20)

    asyncio.run(main())


def test_a_required_plan_that_a_client_loads_ends_the_start(path, tmp_path):
    late = tmp_path / "late.plan"
    recorder = Recorder()

    async def main():
        plans = (PlanConfig("late", str(late)),)
        daemon = Daemon(ServeConfig(plans=plans, http="127.0.0.1:0", watch_interval_s=0), recorder)
        await daemon.start()
        try:
            shutil.copy(path, late)
            await daemon.repository.load("late")
            daemon._wait_longer()
            daemon._wait_longer()
        finally:
            await daemon.stop()

    asyncio.run(main())
    assert recorder.sent.count("READY=1") == 1
    assert not [text for text in recorder.sent if text.startswith("EXTEND_TIMEOUT_USEC=20")]


def test_idle_streams_test_all_their_plans_in_turn(path):
    async def main():
        names = {"a": "one", "b": "one", "c": "two", "d": "two"}
        plans = tuple(PlanConfig(name, path, stream=stream) for name, stream in names.items())
        daemon = Daemon(ServeConfig(plans=plans, http="127.0.0.1:0"), Recorder())
        await daemon.start()
        tested = []
        try:
            for name, plan in daemon.repository.plans.items():
                plan.deployment.self_test = lambda name=name: tested.append(name)
            for _ in range(2):
                for worker in daemon.repository.devices.workers:
                    daemon._self_test_of(worker)()
        finally:
            await daemon.stop()
        assert sorted(tested) == sorted(names)

    asyncio.run(main())


def test_notify_socket_forms(tmp_path):
    import socket

    for address in (str(tmp_path / "n"), f"@edgeplan-test-notify-{os.getpid()}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind("\0" + address[1:] if address[0] == "@" else address)
            notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000"})
            assert notifier.watchdog_s == 3.0
            notifier.status("two\nlines")
            assert manager.recv(100) == b"STATUS=two lines"
    assert Notifier({"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}).watchdog_s == 0


def test_full_collections_pass_over_what_was_imported(path):
    async def main():
        config = ServeConfig(plans=(PlanConfig("m", path),), http="127.0.0.1:0")
        daemon = Daemon(config, Recorder())
        seen = []

        def on_ready(_):
            seen.append((gc.get_freeze_count(), len(gc.get_objects())))
            daemon._stopped.set()

        assert await daemon.run(on_ready) == 0
        return seen[0]

    try:
        frozen, left = asyncio.run(main())
    finally:
        gc.unfreeze()
    assert frozen > 5 * left


def test_a_sensor_that_hangs_holds_neither_metrics_nor_the_end(path, tmp_path, monkeypatch):
    fifo = tmp_path / "temp"
    os.mkfifo(fifo)
    stuck = Sensor("temperature_celsius", "stuck", str(fifo), 1e-3)
    (tmp_path / "fine").write_text("48500")
    fine = Sensor("temperature_celsius", "fine", str(tmp_path / "fine"), 1e-3)
    monkeypatch.setattr(daemon_module, "find_sensors", lambda: [stuck, fine])
    monkeypatch.setattr(sensor_reader, "PATIENCE_S", 0.5)

    async def answer_to(daemon, target):
        reader, writer = await asyncio.open_connection(*daemon.http_address)
        text = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        writer.write(text.encode())
        answer = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"stuck" not in answer
        return answer

    async def scenario(daemon, recorder):
        for target in ("/metrics", "/status.json"):
            end = time.monotonic() + 60
            while b"fine" not in await answer_to(daemon, target):  # a stall looks like a hang
                assert time.monotonic() < end

    run(path, scenario)
    fifo.open("w").close()  # so that the thread ends with this test
