"""Two devices, one program: an engine is bound to its device, and any thread may use any engine.

python -m examples.two_devices [DEVICE DEVICE]

Devices are cpu, cuda, cuda:1 and so on; without arguments the first two GPUs, else the CPU twice.
Two threads share a thousand pictures, each changing between the devices from batch to batch.
Nobody ever selects a current device.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import builder_host as bh
import runtime_edge as rt
from builder_host.builder import resolve_target
from builder_host.errors import TargetError
from examples.digits import DATA

LENET = DATA / "caffe" / "lenet"
BATCH = 100


def two_devices() -> list[str]:
    """The first two GPUs, or the CPU twice."""
    try:
        resolve_target("cuda:1")
    except TargetError:  # no driver, or fewer GPUs
        return ["cpu", "cpu"]
    return ["cuda:0", "cuda:1"]


def engine_on(device: str) -> rt.Engine:
    """LeNet for batches of BATCH, built for a device and loaded there."""
    files = (LENET / "lenet.prototxt", LENET / "lenet_iter_9000.caffemodel")
    network = bh.import_caffe(*files, shapes={"data": (BATCH, 1, 28, 28)})
    target = "auto" if device == "cpu" else device
    # Without measure="none" every kernel is timed; one thread each leaves the CPU to the other.
    built = bh.build(network, bh.BuilderConfig(target=target, measure="none", num_threads=1))
    return rt.load(built.to_bytes(), device=device)


def main() -> int:
    """Classify a thousand pictures on both devices from two threads, then compare."""
    devices = sys.argv[1:] or two_devices()
    if len(devices) != 2:
        raise SystemExit("name two devices, or none")
    stored = np.load(DATA / "images" / "mnist" / "t10k_first1000.npz")
    images = next(a for a in stored.values() if a.ndim == 3)[:, None].astype(np.float32) / 256
    labels = next(a for a in stored.values() if a.ndim == 1)
    engines = [engine_on(device) for device in devices]
    prob = np.zeros((2, len(images), 10), np.float32)  # of either device

    def work(thread: int) -> None:
        """Every other batch on both devices."""
        contexts = [engine.create_context() for engine in engines]
        for first in range(thread * BATCH, len(images), 2 * BATCH):
            batch = slice(first, first + BATCH)
            for device in (thread, 1 - thread):
                outputs = {"prob": prob[device, batch]}
                contexts[device].execute({"data": images[batch]}, outputs)
        for context in contexts:
            context.close()

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(work, range(2)))
    for device, found in zip(devices, prob, strict=True):
        right = int((found.argmax(1) == labels).sum())
        print(f"{device}: {right} of {len(labels)} right")
    print(f"largest difference between the devices: {np.abs(prob[0] - prob[1]).max():.3g}")
    for engine in engines:
        engine.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
