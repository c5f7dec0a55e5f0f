"""Calibrators: a program's batches become dynamic ranges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from builder_host.calibration.collect import calibrate
from builder_host.calibration.table import CalibrationTable, parse_table
from builder_host.calibration.thresholds import find_calibrator
from builder_host.errors import BuilderError
from builder_host.network.network import NUMPY_OF_DTYPE, Network
from builder_host.tensorrt.build_enums import CalibrationAlgoType


class IInt8Calibrator:
    """Base of the calibrators; programs override the methods."""

    algorithm = CalibrationAlgoType.ENTROPY_CALIBRATION_2

    def get_batch_size(self) -> int:
        """Rows of a batch."""
        raise NotImplementedError(f"{type(self).__name__}.get_batch_size is not implemented")

    def get_batch(self, names: Sequence[str], *_: Any) -> Sequence[int] | None:
        """Device addresses of the inputs of one batch, None after the last."""
        raise NotImplementedError(f"{type(self).__name__}.get_batch is not implemented")

    def read_calibration_cache(self, *_: Any) -> bytes | None:
        """An earlier table, None when there is none."""
        return None

    def write_calibration_cache(self, cache: bytes, *_: Any) -> None:
        """Keep the table."""

    def get_algorithm(self) -> CalibrationAlgoType:
        """How ranges are found."""
        return self.algorithm


class IInt8EntropyCalibrator2(IInt8Calibrator):
    """Entropy, the second variant."""


class IInt8EntropyCalibrator(IInt8Calibrator):
    """Entropy, the first variant."""

    algorithm = CalibrationAlgoType.ENTROPY_CALIBRATION


class IInt8MinMaxCalibrator(IInt8Calibrator):
    """Largest magnitudes."""

    algorithm = CalibrationAlgoType.MINMAX_CALIBRATION


class IInt8LegacyCalibrator(IInt8Calibrator):
    """Quantile and cut-off search."""

    algorithm = CalibrationAlgoType.LEGACY_CALIBRATION


def table_of(calibrator: IInt8Calibrator, network: Network, device: Any) -> CalibrationTable:
    """The calibrator's cached table, or one from its batches, which it is then given to keep.

    Args:
        calibrator: a program's.
        network: of a batch that `get_batch_size` divides or equals.
        device: reads what the batches' addresses point to (`runtime_edge` device).

    Raises:
        BuilderError: the cache is malformed, or there are no batches.
    """
    cached = calibrator.read_calibration_cache()
    if cached:
        return parse_table(bytes(cached).decode("utf-8", "replace"), "calibration cache")
    rule = find_calibrator(calibrator.get_algorithm().value)
    table = calibrate(network, _samples(calibrator, network, device), rule)
    calibrator.write_calibration_cache(table.text().encode())
    return table


def _samples(calibrator: IInt8Calibrator, network: Network, device: Any) -> Iterator[Any]:
    names = [tensor.name for tensor in network.inputs]
    rows = calibrator.get_batch_size()
    if rows < 1:
        raise BuilderError(f"get_batch_size() gave {rows}; expected at least 1")
    while True:
        addresses = calibrator.get_batch(names)
        if not addresses:
            return
        arrays = {}
        for tensor, address in zip(network.inputs, addresses, strict=True):
            shape = (rows, *tensor.shape[1:])
            kind = np.dtype(NUMPY_OF_DTYPE[tensor.dtype])
            data = device.read(int(address), int(np.prod(shape)) * kind.itemsize)
            arrays[tensor.name] = np.frombuffer(data, kind).reshape(shape)
        for row in range(rows):
            yield {name: array[row : row + 1] for name, array in arrays.items()}
