"""Targets of this machine and others; here without a GPU."""

from __future__ import annotations

import ctypes.util

import pytest

from builder_host.builder import resolve_target
from builder_host.errors import TargetError
from builder_host.measure.local import local_fingerprint
from planformat.fingerprint import fingerprint_to_json

HAS_DRIVER = ctypes.util.find_library("cuda") is not None


def test_this_machine_by_name_and_by_file(tmp_path):
    path = tmp_path / "here.json"
    path.write_text(fingerprint_to_json(local_fingerprint()))
    for target in ("auto", "host-cpu", str(path)):
        fingerprint, here = resolve_target(target)
        assert fingerprint == local_fingerprint()
        assert here == "cpu"


def test_a_board_is_not_here():
    fingerprint, here = resolve_target("jetson-agx-orin")
    assert fingerprint.fields["cuda.compute_capability"] == "8.7"
    assert here == ""


@pytest.mark.skipif(HAS_DRIVER, reason="this machine has a CUDA driver")
def test_a_gpu_without_a_driver_is_explained():
    with pytest.raises(TargetError, match=r"target 'cuda:1': .*libcuda"):
        resolve_target("cuda:1")


def test_unknown_targets_name_the_boards():
    with pytest.raises(TargetError, match="jetson-agx-orin"):
        resolve_target("cuda0")
