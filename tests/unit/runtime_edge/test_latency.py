"""Latency of a profile: how often it runs, and that its memory is given back."""

from __future__ import annotations

import pytest
from support import tiny_plans

import runtime_edge as rt
from runtime_edge import latency
from runtime_edge.errors import DeviceError
from runtime_edge.latency import measure_latency


@pytest.fixture
def engine():
    with rt.load(tiny_plans.plan(), canary=False) as loaded:
        yield loaded


@pytest.mark.parametrize("profile", [None, "slow"])
def test_fifty_inferences_or_as_many_as_two_seconds_hold(engine, profile):
    found = measure_latency(engine, profile)
    assert 1 <= found.num_runs <= 50
    assert 0 < found.p20_us <= found.median_us <= found.p80_us


def test_one_inference_beyond_the_budget_is_enough(engine, monkeypatch):
    monkeypatch.setattr(latency, "_BUDGET_S", 0.0)
    found = measure_latency(engine)
    assert found.num_runs == 1
    assert found.p20_us == found.median_us == found.p80_us > 0


def test_memory_is_given_back_when_a_binding_finds_none(engine, monkeypatch):
    device, held = engine.device, set()
    allocate, free = device.allocate, device.free

    def scarce(nbytes, alignment):
        if any(size == 4000 for _, size in held):  # x has its memory, y finds none
            raise DeviceError("no memory")
        address = allocate(nbytes, alignment)
        held.add((address, nbytes))
        return address

    def freed(address):
        held.difference_update([row for row in held if row[0] == address])
        free(address)

    monkeypatch.setattr(device, "allocate", scarce)
    monkeypatch.setattr(device, "free", freed)
    with pytest.raises(DeviceError, match="no memory"):
        measure_latency(engine)
    assert not held
