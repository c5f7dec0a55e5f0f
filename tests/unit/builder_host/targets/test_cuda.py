"""CUDA targets: the table of architectures, and which toolkit a driver asks for."""

from __future__ import annotations

import pytest

from boards.spec import board_names, load_board
from builder_host.errors import TargetError
from builder_host.targets.cuda import (
    ARCHITECTURES,
    TOOLKITS,
    ToolkitChoice,
    choose_toolkit,
    cuda_target,
    version_text,
)
from builder_host.targets.target import target_fingerprint, target_hardware
from planformat.fingerprint import DeviceFingerprint


def fingerprint(capability: str, cuda: str, **others: str) -> DeviceFingerprint:
    fields = {
        "cuda.compute_capability": capability,
        "cuda.cuda_version": cuda,
        "cuda.num_sms": "8",
    }
    fields |= {f"cuda.{name}": value for name, value in others.items()}
    return DeviceFingerprint("cuda", fields)


@pytest.mark.parametrize(
    ("name", "driver", "expected"),
    [
        ("53", (10, 2), ToolkitChoice((11, 8), "6.5")),  # JetPack 4
        ("61", (9, 0), ToolkitChoice((11, 8), "6.0")),  # DRIVE PX 2
        ("62", (9, 2), ToolkitChoice((11, 8), "6.2")),
        ("72", (10, 2), ToolkitChoice((11, 8), "6.5")),
        ("72", (11, 4), ToolkitChoice((11, 8))),  # JetPack 5, minor version compatibility
        ("87", (11, 4), ToolkitChoice((11, 8))),
        ("87", (12, 2), ToolkitChoice((12, 2))),  # JetPack 6.0
        ("87", (12, 6), ToolkitChoice((12, 6))),
        ("87", (13, 2), ToolkitChoice((13, 0))),  # JetPack 7.2
        ("61", (13, 0), ToolkitChoice((12, 9))),  # CUDA 13 dropped it, its driver did not
        ("90", (11, 8), ToolkitChoice((11, 8))),
        ("90", (12, 8), ToolkitChoice((12, 6))),
        ("120", (12, 8), ToolkitChoice((12, 9))),
        ("101", (12, 8), ToolkitChoice((12, 9))),  # Thor's name to CUDA 12
        ("110", (13, 0), ToolkitChoice((13, 0))),
        ("75", (99, 0), ToolkitChoice((13, 0))),
    ],
)
def test_driver_decides_the_toolkit(name, driver, expected):
    assert choose_toolkit(ARCHITECTURES[name], driver) == expected


@pytest.mark.parametrize(
    ("name", "driver", "message"),
    [
        ("110", (12, 9), "sm_110 that a driver of CUDA 12.9 takes: sm_110 needs 13.0 to 13.0"),
        ("100", (11, 8), "sm_100 needs 12.9 to 13.0"),
        ("87", (10, 2), "sm_87 needs 11.8 to 13.0"),  # PTX 6.5 does not know sm_87
        ("53", (8, 0), "driver of CUDA 8.0"),
        ("72", (9, 0), "driver of CUDA 9.0"),  # PTX 6.0 does not know sm_72
    ],
)
def test_driver_without_a_toolkit_is_refused(name, driver, message):
    with pytest.raises(TargetError, match=message):
        choose_toolkit(ARCHITECTURES[name], driver)


def test_no_toolkit_is_ever_of_a_newer_major_version_than_the_driver():
    for row in ARCHITECTURES.values():
        for driver in [(major, minor) for major in range(8, 15) for minor in range(10)]:
            try:
                choice = choose_toolkit(row, driver)
            except TargetError:
                continue
            assert row.first_toolkit <= choice.version <= row.last_toolkit
            assert choice.ptx_version is not None or choice.version[0] <= driver[0]
            assert (choice.ptx_version is not None) == (driver < (11, 0))


def test_every_software_of_every_board_chooses_the_toolkit_that_its_file_states():
    for name in board_names():
        spec = load_board(name)
        for software in spec.software:
            fields = load_board(f"{name}@{software.name}").fingerprint
            fields = {"cuda.num_sms": "1", **fields}
            target = cuda_target(DeviceFingerprint("cuda", fields))
            assert version_text(target.toolkit) == software.toolkit, f"{name}@{software.name}"


def test_boards_become_targets():
    target = cuda_target(target_fingerprint("jetson-agx-orin"), target_hardware("jetson-agx-orin"))
    assert (target.sm, target.num_sms, target.toolkit) == ("87", 16, (12, 6))
    assert target.is_integrated
    assert target.memory_gbps == 204.8
    assert target.memory_bytes == 64 << 30
    assert target.shared_per_block_bytes == 163 * 1024
    old = cuda_target(target_fingerprint("jetson-agx-orin@jetpack5"))
    assert old.toolkit == (11, 8)
    assert old.memory_gbps == 0.0


def test_bandwidth_comes_from_the_device_when_it_tells():
    h200 = fingerprint("9.0", "13.0", memory_clock_hz="3201000000", memory_bus_bits="6144")
    assert cuda_target(h200, {"memory_gbps": 1.0}).memory_gbps == pytest.approx(4916.736)


@pytest.mark.parametrize(
    ("capability", "cuda", "sm"),
    [
        ("8.7", "12.6", "87"),
        ("9.0", "11.8", "90"),  # CUDA 11.8 knows no sm_90a
        ("9.0", "12.6", "90a"),
        ("10.1", "12.8", "101a"),
        ("11.0", "13.0", "110a"),
        ("12.0", "12.8", "120a"),
    ],
)
def test_sm_unlocks_all_instructions_that_the_toolkit_knows(capability, cuda, sm):
    assert cuda_target(fingerprint(capability, cuda)).sm == sm


def test_features_by_architecture():
    def having(feature: str) -> list[str]:
        targets = {}
        for name, row in ARCHITECTURES.items():
            newest = version_text(row.last_toolkit)
            targets[name] = cuda_target(fingerprint(version_text(row.compute_capability), newest))
        return [name for name, target in targets.items() if getattr(target, feature)]

    everything = list(ARCHITECTURES)
    from_sm80 = everything[everything.index("80") :]
    assert having("has_fp16") == [name for name in everything if name != "61"]
    assert having("has_dp4a") == [name for name in everything if name not in ("53", "62")]
    assert having("has_wmma") == ["72", "75", *from_sm80]
    assert having("has_mma_f16") == having("has_mma_s8") == ["75", *from_sm80]
    assert having("has_mma_k16") == having("has_bf16") == from_sm80
    assert having("has_clusters") == having("has_tma") == from_sm80[4:]
    assert having("has_dependent_launch") == from_sm80[4:]
    assert having("has_wgmma") == ["90"]


def test_features_follow_the_toolkit_too():
    old = cuda_target(fingerprint("9.0", "11.8"))
    assert (old.has_wgmma, old.has_tma) == (False, False)


def test_table_is_consistent():
    for name, row in ARCHITECTURES.items():
        assert row.name == name
        assert row.first_toolkit in TOOLKITS
        assert row.last_toolkit in TOOLKITS
        assert row.shared_per_block_bytes <= row.shared_per_sm_bytes
        assert row.max_threads_per_sm % 32 == 0
    assert list(TOOLKITS) == sorted(TOOLKITS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cuda.compute_capability": "7.0"}, "no kernels for compute capability 7.0; 5.3, 6.1"),
        ({"cuda.compute_capability": "eight"}, "is 'eight'; expected a version like 8.7"),
        ({"cuda.num_sms": "0"}, "'cuda.num_sms' is '0'; expected a positive number"),
        ({"cuda.l2_bytes": "4 MB"}, "'cuda.l2_bytes' is '4 MB'; expected a number"),
        ({"cuda.is_integrated": "yes"}, "'cuda.is_integrated' is 'yes'; expected 0 or 1"),
        ({"cuda.cuda_version": None}, "no field 'cuda.cuda_version'; probe the device"),
        ({"cuda.num_sms": None}, "no field 'cuda.num_sms'; probe the device"),
    ],
)
def test_bad_fingerprints_are_refused(fields, message):
    given = {**fingerprint("8.7", "12.6").fields, **fields}
    kept = {name: value for name, value in given.items() if value is not None}
    with pytest.raises(TargetError, match=message):
        cuda_target(DeviceFingerprint("cuda", kept))


def test_a_cpu_is_no_gpu():
    with pytest.raises(TargetError, match="of a 'cpu' device; expected 'cuda'"):
        cuda_target(DeviceFingerprint("cpu", {}))


def test_a_board_whose_sms_are_unknown_asks_for_a_probe():
    with pytest.raises(TargetError, match=r"no field 'cuda.num_sms'; probe the device"):
        cuda_target(target_fingerprint("drive-thor"))


def test_unknown_software_is_a_target_error():
    with pytest.raises(TargetError, match="has no software 'jetpack9'"):
        target_fingerprint("jetson-agx-orin@jetpack9")
