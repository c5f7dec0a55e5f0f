"""Sensors that hang: pipes that nobody writes to keep who opens them, like a stuck driver."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time

import pytest

from runtime_edge.serve import sensor_reader
from runtime_edge.serve.sensor_reader import SensorReader
from runtime_edge.serve.sysfs import Sensor


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(sensor_reader, "PATIENCE_S", 0.2)


def sensors(folder, *, hung=()):
    found = []
    for number in range(4):
        path = folder / str(number)
        if number in hung:
            os.mkfifo(path)
        else:
            path.write_text(f"{number}\n")
        found.append(Sensor("temperature_celsius", str(number), str(path), 1.0))
    return found


async def labels(reader):
    return [reading.label for reading in await asyncio.wait_for(reader.read(), 60)]


async def until_read(reader, wanted):
    end = time.monotonic() + 60
    while (found := await labels(reader)) != wanted:
        assert time.monotonic() < end, found
        await asyncio.sleep(0.01)


def answer(path, text):
    """What a driver does whose bus works again: the read that waits ends."""
    with open(path, "w") as file:
        file.write(text)


def test_all_answer_in_order(tmp_path):
    async def scenario():
        found = sensors(tmp_path)
        (tmp_path / "2").write_text("nonsense")
        (tmp_path / "3").unlink()
        reader = SensorReader(found)
        await until_read(reader, ["0", "1"])  # a loaded machine may need more than one round

    asyncio.run(scenario())


@pytest.mark.parametrize("hung", [(0,), (1, 2), (3,), (0, 1, 2, 3)])
def test_those_that_hang_are_left_out_until_they_answer(tmp_path, hung):
    async def scenario():
        found = sensors(tmp_path, hung=hung)
        others = [str(number) for number in range(4) if number not in hung]
        reader = SensorReader(found)
        await until_read(reader, others)
        assert {found[number] for number in hung} <= reader._hung
        await until_read(reader, others)
        for number in hung:
            await asyncio.to_thread(answer, tmp_path / str(number), "7")
            (tmp_path / str(number)).unlink()
            (tmp_path / str(number)).write_text("8")
        await until_read(reader, ["0", "1", "2", "3"])
        assert not reader._hung

    asyncio.run(scenario())


def test_who_asks_at_once_is_answered_at_once(tmp_path):
    async def scenario():
        reader = SensorReader(sensors(tmp_path, hung=(1,)))
        await until_read(reader, ["0", "2", "3"])
        several, end = [], time.monotonic() + 60
        while [len(readings) for readings in several] != [3] * 5:  # a stall looks like a hang
            assert time.monotonic() < end, several
            reads = asyncio.gather(*(reader.read() for _ in range(5)))
            several = await asyncio.wait_for(reads, 60)

    asyncio.run(scenario())


def test_the_process_ends_beside_a_read_that_does_not(tmp_path):
    os.mkfifo(tmp_path / "0")
    program = f"""
import asyncio
from runtime_edge.serve.sensor_reader import SensorReader
from runtime_edge.serve.sysfs import Sensor
reader = SensorReader([Sensor("power_watts", "0", {str(tmp_path / "0")!r}, 1.0)])
print(asyncio.run(reader.read()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"[]\n")
