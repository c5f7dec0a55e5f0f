"""Fingerprints of GPUs, and the probe command."""

from __future__ import annotations

import json

import pytest
from support import fake_libcuda

from planformat.fingerprint import FIELD_RULES
from runtime_edge.cli import main
from runtime_edge.device.cuda_probe import probe_gpu

EXPECTED = {
    "cuda.name": "Stand-in Orin",
    "cuda.compute_capability": "8.7",
    "cuda.num_sms": "16",
    "cuda.core_clock_hz": "1300000000",
    "cuda.memory_clock_hz": "3199000000",
    "cuda.memory_bytes": str(1 << 30),
    "cuda.memory_bus_bits": "256",
    "cuda.l2_bytes": str(4 << 20),
    "cuda.shared_memory_per_sm_bytes": "167936",
    "cuda.shared_memory_per_block_bytes": "166912",
    "cuda.is_integrated": "0",
    "cuda.cuda_version": "12.6",
}


@pytest.fixture
def fake():
    loaded = fake_libcuda.load()
    loaded.reset()
    yield loaded
    loaded.reset()


def test_fields_of_a_gpu(fake):
    fingerprint = probe_gpu(0)
    assert fingerprint.device_kind == "cuda"
    assert {k: v for k, v in fingerprint.fields.items() if k in EXPECTED} == EXPECTED
    assert set(fingerprint.fields) <= set(FIELD_RULES)


def test_facts_that_the_driver_does_not_tell_are_left_out(fake):
    fake.set_attribute(0, 36, 0)
    fake.set_attribute(0, 18, 1)
    fields = probe_gpu(0).fields
    assert "cuda.memory_clock_hz" not in fields
    assert fields["cuda.is_integrated"] == "1"


def test_command(fake, capsys):
    fake.set_num_devices(2)
    assert main(["probe", "--device", "cuda:1", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["device_kind"] == "cuda"
    assert content["fields"]["cuda.name"] == "Stand-in Orin"
    assert main(["probe", "--device", "cuda"]) == 0
    assert "cuda.num_sms: 16" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("device", "text"),
    [("cuda:5", "GPU 5 of 1 (numbers start at 0)"), ("gpu", "known are cpu, cuda")],
)
def test_command_refuses_devices_that_are_not_there(fake, capsys, device, text):
    assert main(["probe", "--device", device]) != 0
    assert text in capsys.readouterr().err
