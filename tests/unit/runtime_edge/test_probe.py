"""Fingerprint of a machine from its system files."""

from __future__ import annotations

import os

from planformat.fingerprint import FIELD_RULES, compare
from runtime_edge import probe, probe_device

X86 = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC 9B14
stepping\t: 1
flags\t\t: fpu avx avx2 fma sse4_2 avx512f

processor\t: 1
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC 9B14
stepping\t: 1
flags\t\t: fpu avx avx2 fma sse4_2
"""
ARM = """processor\t: 0
BogoMIPS\t: 62.50
Features\t: fp asimd fphp asimdhp asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd42
CPU revision\t: 1

Hardware\t: Jetson
"""


def test_fields_of_this_machine():
    fingerprint = probe_device()
    assert fingerprint.device_kind == "cpu"
    assert set(fingerprint.fields) <= set(FIELD_RULES)
    assert fingerprint.fields["cpu.architecture"] == os.uname().machine
    assert 1 <= int(fingerprint.fields["cpu.num_cores"]) <= len(os.sched_getaffinity(0))
    for level in ("l1d", "l2", "l3"):
        assert int(fingerprint.fields[f"cpu.{level}_bytes"]) >= 0
    assert compare(fingerprint, probe_device()) == ()


def test_x86(monkeypatch):
    monkeypatch.setattr(probe, "read_large", lambda path: X86 if "cpuinfo" in path else "")
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "n", "6", "v", "x86_64")))
    fields = probe_device().fields
    assert fields["cpu.vendor"] == "AuthenticAMD"
    assert fields["cpu.model"] == "AMD EPYC 9B14 25/17/1"
    assert fields["cpu.features"] == "avx avx2 fma sse4_2"  # what every core has, ascending


def test_board(monkeypatch):
    files = {
        "/proc/cpuinfo": ARM,
        "/etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=2 NAME=30W >\n",
        "/proc/device-tree/model": "NVIDIA Jetson AGX Orin",
        "/etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic",
        "/var/lib/nvpmodel/status": "pmode:0002",
    }
    monkeypatch.setattr(probe, "read_large", lambda path: files.get(path, ""))
    monkeypatch.setattr(probe, "read_text", lambda path: files.get(path))
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "n", "6", "v", "aarch64")))
    fields = probe_device().fields
    assert fields["cpu.vendor"] == "0x41"
    assert fields["cpu.model"] == "0x41/0xd42/r0p1"
    assert fields["cpu.features"] == "asimd asimddp asimdhp fphp"
    assert fields["board.model"] == "NVIDIA Jetson AGX Orin"
    assert fields["board.release"] == "36.4.3"
    assert fields["board.power_mode"] == "30W"


def test_power_mode_without_a_name(monkeypatch):
    assert probe._power_mode("pmode:0008", "") == "8"
    assert probe._power_mode("", "") == ""
