"""Reading sensors without waiting for one that hangs: neither an answer nor the end does.

A driver may keep a read of its file for ever (a bus that is stuck). Rounds run on threads that
nobody joins; the sensor that a round hangs on is left out, and the round goes on without it, until
that read ends after all. So each hung sensor costs one thread, and one wait when it is found.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Sequence

from runtime_edge.serve.sysfs import Reading, Sensor

_log = logging.getLogger(__name__)

PATIENCE_S = 1.0
"""For one sensor. I2C power monitors answer within milliseconds, sleeping ones within tens."""


class _Round:
    """One pass over some sensors.

    Attributes:
        readings: one per sensor that has answered; lock: of the two that follow.
        abandoned: the sensor that took too long, None while there is none.
        done: the pass is over.
    """

    def __init__(self, sensors: Sequence[Sensor]) -> None:
        self.sensors = sensors
        self.readings: list[Reading | None] = []
        self.abandoned: Sensor | None = None
        self.lock = threading.Lock()
        self.done = asyncio.Event()


class SensorReader:
    """Reads sensors beside the event loop. Belongs to the event loop's thread."""

    def __init__(self, sensors: Sequence[Sensor]) -> None:
        """Nothing is read yet."""
        self._sensors = tuple(sensors)
        self._hung: set[Sensor] = set()
        self._lock = asyncio.Lock()

    async def read(self) -> list[Reading]:
        """What the sensors show now; one that does not answer, or hangs, is left out."""
        async with self._lock:  # who asks meanwhile has a round of its own
            sensors = [sensor for sensor in self._sensors if sensor not in self._hung]
            readings: list[Reading] = []
            while sensors:
                answered = await self._answered(sensors)
                readings += [reading for reading in answered if reading is not None]
                sensors = sensors[len(answered) + 1 :]
            return readings

    async def _answered(self, sensors: Sequence[Sensor]) -> list[Reading | None]:
        """Readings in order, up to the first sensor that hangs."""
        current = _Round(sensors)
        loop = asyncio.get_running_loop()
        threading.Thread(
            target=self._run, args=(current, loop), name="edgeplan-sensors", daemon=True
        ).start()
        num_before = 0
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(current.done.wait(), PATIENCE_S)
                return current.readings
            with current.lock:
                answered = list(current.readings)
                if len(answered) == len(sensors):
                    return answered
                if len(answered) == num_before:
                    current.abandoned = sensor = sensors[num_before]
                    break
                num_before = len(answered)
        self._hung.add(sensor)
        _log.warning("%s does not answer; the sensor is left out until it does", sensor.path)
        return answered

    def _run(self, current: _Round, loop: asyncio.AbstractEventLoop) -> None:
        for sensor in current.sensors:
            reading = sensor.read()
            with current.lock:
                if current.abandoned is not None:
                    break
                current.readings.append(reading)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(self._on_end, current)

    def _on_end(self, current: _Round) -> None:
        if current.abandoned is not None:
            _log.info("%s answers again", current.abandoned.path)
            self._hung.discard(current.abandoned)
        current.done.set()
