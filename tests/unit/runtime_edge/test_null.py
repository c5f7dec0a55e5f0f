"""The null device: an engine on it does everything but compute."""

from __future__ import annotations

from support import tiny_plans

import runtime_edge as rt
from planformat.fingerprint import DeviceFingerprint
from planformat.writer import plan_bytes
from runtime_edge.device.null import NullDevice

BOARD = DeviceFingerprint("cpu", {"cpu.architecture": "riscv64"})


def test_requests_are_recorded():
    device = NullDevice(BOARD)
    data = plan_bytes(tiny_plans.plan(fingerprint=BOARD, canary=False))
    engine = rt.load(data, device=device)
    stream = engine.create_stream()
    x, y = bytes(4000), bytearray(4000)
    with engine.create_context(arena=1 << 20) as context:
        context.enqueue({"x": x, "y": y}, stream)
        stream.synchronize()
    engine.close()
    assert bytes(y) == bytes(4000)
    log = [line.partition(" 0x")[0] for line in device.log]
    assert log == [
        "load 1 code objects with 3 kernels",
        "map 8 bytes of weights",
        "create program of 2 steps for 1 workers",
        "enqueue",
        "run",
        "step scale0",
        "step shift0",
        "synchronize",
        "close program",
        "close code",
    ]


def test_memory_is_balanced():
    device = NullDevice(BOARD)
    engine = rt.load(plan_bytes(tiny_plans.plan(fingerprint=BOARD, canary=False)), device=device)
    engine.create_context().close()
    assert device.log.count(f"allocate {engine.context_bytes()} bytes") == 1
    assert device.log.count("free") == 1
