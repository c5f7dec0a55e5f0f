"""What the cost models expect on boards that are not here: latency and share of the bound.

    python -m benchmarks.predict_boards [--boards jetson-nano,...] [--networks resnet50,...]

Every figure is a PREDICTION: tactics are those of `--measure none`, times are estimates of the cost
models, nothing is run. The bound of a network on a board is the sum over its operations of the
longer of two times at nominal peaks: its arithmetic in the best precision of the build, and reading
its weights from memory once; activations and launches are free. With `--check` the same model is
compared with latencies that were measured on an H200 (RESULTS.md).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.model_error import percentile
from benchmarks.topologies import TOPOLOGIES, yolov2
from builder_host.config import BuilderConfig
from builder_host.importers.onnx.model import import_onnx
from builder_host.inspection.roofs import device_roofs
from builder_host.network.network import Network
from builder_host.prediction import Prediction, predict
from builder_host.targets.cuda import cuda_target
from builder_host.targets.target import target_fingerprint, target_hardware
from planformat.fingerprint import DeviceFingerprint

BOARDS = (
    "jetson-nano",
    "jetson-tx2",
    "jetson-xavier-nx",
    "jetson-agx-xavier",
    "jetson-orin-nano",
    "jetson-agx-orin",
    "jetson-agx-thor",
)
NETWORKS = {**TOPOLOGIES, "yolov2": yolov2}
# Microseconds of one graph replay, float16, batch 1: states A and B of the table in RESULTS.md
# (2026-11-20). MobileNet-v1 was measured with older kernels and is left out.
MEASURED_H200_US: Mapping[str, float] = {
    "squeezenet_v1.1": 49.4,
    "mobilenet_v2": 91.5,
    "googlenet": 111.7,
    "resnet50": 161.9,
    "vgg16": 188.8,
}


@dataclass(frozen=True, slots=True)
class Board:
    """A board file; peaks are 0 where it does not tell the clock.

    Attributes:
        name: of the file.
        ops_per_us: float16 operations per microsecond at the nominal peak.
        bytes_per_us: of memory.
    """

    name: str
    ops_per_us: float
    bytes_per_us: float

    def bound_us(self, prediction: Prediction) -> float:
        """See the module's text."""
        return sum(
            max(
                step.num_operations / self.ops_per_us if self.ops_per_us else 0.0,
                step.constant_bytes / self.bytes_per_us,
            )
            for step in prediction.steps
        )


def load_board(name: str) -> Board:
    """Peaks of a board of `boards/specs`."""
    fingerprint = _fingerprint(name)
    target = cuda_target(fingerprint, target_hardware(name))
    roofs = device_roofs(fingerprint, 1)
    peak = max(roofs.peaks.values()) if roofs is not None else 0.0
    if target.has_fp16 and not target.has_wmma:
        peak *= 2  # half2: two operations in each lane
    return Board(name, peak * 1e3, target.memory_gbps * 1e3)


def predicted(network: Network, board: str) -> Prediction:
    """A network in float16 on a board."""
    config = BuilderConfig(precision="fp16", measure="none")
    return predict(network, _fingerprint(board), target_hardware(board), config)


def print_check(networks: Mapping[str, Network]) -> None:
    """Predictions for an H200 beside what was measured there."""
    print("| network | predicted µs | measured µs | predicted / measured |")
    print("|---|---|---|---|")
    errors = []
    for name, network in networks.items():
        if name in MEASURED_H200_US:
            latency_us, measured_us = predicted(network, "h200").latency_us, MEASURED_H200_US[name]
            errors.append(abs(latency_us / measured_us - 1))
            ratio = f"{latency_us / measured_us:.2f}"
            print(f"| {name} | {latency_us:.1f} | {measured_us:.1f} | {ratio} |", flush=True)
    print(
        f"\n|predicted / measured - 1|: median {statistics.median(errors):.0%}, 90th percentile "
        f"{percentile(errors, 0.9):.0%}, over {len(errors)} networks\n"
    )


def print_predictions(networks: Mapping[str, Network], names: list[str]) -> None:
    """One row per network: predicted latency and share of the bound on each board."""
    boards = [load_board(name) for name in names]
    print(f"| network | {' | '.join(board.name for board in boards)} |")
    print("|---" * (1 + len(boards)) + "|")
    for name, network in networks.items():
        cells = []
        for board in boards:
            found = predicted(network, board.name)
            share = f"{board.bound_us(found) / found.latency_us:.0%}" if board.ops_per_us else "–"
            cells.append(f"{found.latency_us / 1e3:.2f} ({share})")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--boards", default=",".join(BOARDS))
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--check", action="store_true", help="against the H200's measurements")
    args = parser.parse_args()
    networks = {name: imported(name) for name in args.networks.split(",")}
    if args.check:
        print_check(networks)
    print_predictions(networks, args.boards.split(","))


def imported(name: str) -> Network:
    """One of `NETWORKS`."""
    with tempfile.TemporaryDirectory(prefix="edgeplan-predict-") as folder:
        path = Path(folder) / f"{name}.onnx"
        path.write_bytes(NETWORKS[name]().SerializeToString())
        return import_onnx(path)


def _fingerprint(board: str) -> DeviceFingerprint:
    fingerprint = target_fingerprint(board)
    if fingerprint is None:
        raise SystemExit(f"{board}: states no fingerprint; name a GPU board")
    return fingerprint


if __name__ == "__main__":
    main()
