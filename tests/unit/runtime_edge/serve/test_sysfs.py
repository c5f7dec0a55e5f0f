"""Sensors of a board, from a made-up /sys like that of a Jetson Orin."""

from __future__ import annotations

from runtime_edge.serve.sysfs import find_sensors, process_use

FILES = {
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": "48500",
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal",
    "sys/class/hwmon/hwmon3/name": "ina3221",
    "sys/class/hwmon/hwmon3/in1_label": "VDD_GPU_SOC",
    "sys/class/hwmon/hwmon3/in1_input": "5000",
    "sys/class/hwmon/hwmon3/curr1_input": "2400",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "1984000",
    "sys/class/devfreq/17000000.ga10b/cur_freq": "918000000",
    "sys/devices/gpu.0/load": "730",
}


def test_a_jetsons_sensors_are_read_in_si_units(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    found = [sensor.read() for sensor in find_sensors(str(tmp_path))]
    readings = {(r.metric, r.label): round(r.value, 6) for r in found if r is not None}
    assert readings == {
        ("temperature_celsius", "cpu-thermal"): 48.5,
        ("power_watts", "VDD_GPU_SOC"): 12.0,
        ("clock_hz", "cpu_policy0"): 1_984_000_000,
        ("clock_hz", "17000000.ga10b"): 918_000_000,
        ("gpu_load_ratio", "gpu"): 0.73,
    }


def test_no_sensors_is_no_error(tmp_path):
    assert find_sensors(str(tmp_path)) == []


def test_this_process_uses_something():
    use = process_use()
    assert use.resident_bytes > 1 << 20
    assert use.total_bytes > use.available_bytes > 0
    assert use.num_threads >= 1
