"""Clocks, heat and load from a made-up system, and what they explain."""

from __future__ import annotations

import os

import pytest

from boards.conditions import (
    available_memory_bytes,
    conditions_text,
    parse_conditions,
    read_conditions,
    slow_causes,
)


@pytest.fixture
def root(tmp_path):
    """A file system of a Jetson at half its clocks."""
    files = {
        "sys/class/thermal/thermal_zone0/temp": "45500",
        "sys/class/thermal/thermal_zone1/temp": "91000",
        "sys/class/thermal/thermal_zone2/temp": "-274000",
        "var/lib/nvpmodel/status": "pmode:0002",
        "proc/loadavg": "1.52 0.9 0.5 2/300 4711",
        "sys/class/devfreq/17000000.ga10b/cur_freq": "612000000",
        "sys/class/devfreq/17000000.ga10b/max_freq": "1300500000",
        "sys/class/devfreq/1f0000.vic/cur_freq": "1",
    }
    for core in os.sched_getaffinity(0):
        base = f"sys/devices/system/cpu/cpu{core}/cpufreq"
        files[f"{base}/scaling_cur_freq"] = "1100000"
        files[f"{base}/cpuinfo_max_freq"] = "2201600"
        files[f"{base}/scaling_governor"] = "schedutil"
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    return tmp_path


def test_everything_that_the_system_tells(root):
    assert read_conditions(root) == {
        "num_cores": float(len(os.sched_getaffinity(0))),
        "cpu_mhz": 1100.0,
        "cpu_max_mhz": 2201.6,
        "governor": "schedutil",
        "temperature_celsius": 91.0,
        "power_mode": "2",
        "load": 1.52,
        "gpu_mhz": 612.0,
        "gpu_max_mhz": 1300.5,
    }


def test_what_is_not_told_is_left_out(tmp_path):
    assert set(read_conditions(tmp_path)) == {"num_cores"}


def test_text_and_back(root):
    conditions = read_conditions(root)
    text = conditions_text(conditions)
    assert "cpu_mhz=1100 " in text
    assert parse_conditions(text) == conditions
    assert parse_conditions("nonsense = =x y=") == {"": "x", "y": ""}


def test_causes_name_both_values(root):
    causes = slow_causes(
        read_conditions(root),
        {"cpu_mhz": 2201.6, "gpu_mhz": 1300.5, "power_mode": "0", "load": 0.0},
    )
    text = "\n".join(causes)
    assert "the CPU runs at 1,100 of 2,202 MHz (governor schedutil)" in text
    assert "the GPU runs at 612 MHz, at build it ran at 1,300" in text
    assert "power mode: it is 2, at build it was 0" in text
    assert "heat: 91 °C" in text


def test_a_busy_board_is_contended_and_an_idle_one_is_not():
    assert (
        "contention: 3.0 runnable threads on 4 cores"
        in slow_causes({"load": 3.0, "num_cores": 4.0})[0]
    )
    assert slow_causes({"load": 0.2, "num_cores": 4.0, "cpu_mhz": 2000.0}) == []


def test_available_memory_is_what_the_kernel_says():
    available = available_memory_bytes()
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert available is not None
    assert 0 < available <= total
