"""Activation arenas of networks as plans have them, beside the classical lower bound.

    python -m benchmarks.bench_arenas [--data DIR] [--targets h200,host-cpu]

The bound is the largest sum of the buffers alive at one step, workspaces included, as the plan is:
in-place results and elided copies are in it, a fusion that nobody wrote is not. Networks: those of
benchmarks/topologies.py, the cases of DIR/cases.json and the prototxts of DIR/caffe/deploy. Nothing
is compiled; sizes are those of the plan that a build without timings makes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import builder_host as bh
from benchmarks.predict_boards import NETWORKS, imported
from builder_host.prediction import Prediction, predict
from builder_host.targets.target import target_fingerprint, target_hardware
from examples.digits import DATA
from examples.zoo_cases import UnusableCaseError, case_rows, load_case
from runtime_edge.probe import probe_device

# Prototxts that need no options, each once.
_DEPLOY = (
    "bvlc_alexnet.deploy",
    "bvlc_googlenet.deploy",
    "MobileNetSSD.deploy",
    "ResNet-152-deploy",
    "SSD_300x300_VGG_coco.deploy",
    "squeezenet_v1.0.deploy",
    "voc-fcn8s.deploy",
)


def networks(data: Path) -> Iterator[tuple[str, Callable[[], bh.Network]]]:
    """Name and importer of every network, each model of cases.json once."""
    for name in NETWORKS:
        yield name, lambda name=name: imported(name)  # type: ignore[misc]
    for stem in _DEPLOY:
        path = data / "caffe" / "deploy" / f"{stem}.prototxt"
        if path.is_file():
            yield f"caffe/deploy/{stem}", lambda path=path: _with_one_image(path)  # type: ignore[misc]
    seen = set()
    for row in case_rows(data):
        model = str(row.get("model"))
        if model not in seen:
            seen.add(model)
            yield row["id"], lambda row=row: load_case(row, data).network  # type: ignore[misc]


def arena_of(network: bh.Network, target: str) -> Prediction:
    """A network on a target: float16 on GPUs, float32 on CPUs."""
    fingerprint = target_fingerprint(target) or probe_device()
    precision = "fp16" if fingerprint.device_kind == "cuda" else "fp32"
    config = bh.BuilderConfig(precision=precision, measure="none")
    return predict(network, fingerprint, target_hardware(target), config)


def main() -> None:
    """Print a row per network, and how many arenas are above their bound."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--targets", default="h200,host-cpu")
    args = parser.parse_args()
    targets = args.targets.split(",")
    print("| network | " + " | ".join(f"{target}: arena MB, of bound" for target in targets) + " |")
    print("|---" * (1 + len(targets)) + "|")
    num_plans = num_above = 0
    for name, make in networks(args.data):
        try:
            network = make()
        except UnusableCaseError:
            continue
        except bh.BuilderError as error:
            print(f"| {name} | {type(error).__name__}: left out |")
            continue
        cells = []
        for target in targets:
            try:
                arena = arena_of(network, target).arena
            except bh.BuilderError as error:
                cells.append(f"– ({type(error).__name__})")
                continue
            num_plans += 1
            num_above += arena.arena_bytes > arena.lower_bound_bytes
            share = arena.arena_bytes / max(arena.lower_bound_bytes, 1)
            cells.append(f"{arena.arena_bytes / 1e6:.3f}, {share:.3f}" if share else "none needed")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print(f"\n{num_plans} plans, {num_above} above their lower bound")


def _with_one_image(path: Path) -> bh.Network:
    network = bh.import_caffe(path)
    if any(tensor.shape[0] > 1 for tensor in network.inputs):
        shapes = {tensor.name: (1, *tensor.shape[1:]) for tensor in network.inputs}
        network = bh.import_caffe(path, shapes=shapes)
    return network


if __name__ == "__main__":
    main()
