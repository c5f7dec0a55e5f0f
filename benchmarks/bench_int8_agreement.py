"""How often INT8 gives the best class of float32, on random crops of unlabelled photographs.

For each calibrator the network is calibrated on crops of one half of the photographs and compared
on crops of the other half, and the other way round, so that no photograph serves both. Agreement is
no accuracy; `expected` is the change of top-1 that float32's own probabilities let expect.

    python -m benchmarks.bench_int8_agreement deploy.prototxt net.caffemodel --photos FOLDER \
        --shapes data:1x3x227x227 --preprocessing photos.toml --json result.json

Each crop covers 15 to 100 % of a picture at an aspect ratio of 3:4 to 4:3; half are mirrored and a
third are 20 % darker to 20 % brighter.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

import builder_host as bh
from builder_host.accuracy.classification import Accuracy, evaluate_plan
from builder_host.calibration.batches import picture_paths
from builder_host.calibration.collect import calibrate
from builder_host.calibration.preprocessing import Preprocessing, load_preprocessing
from builder_host.calibration.thresholds import CALIBRATORS
from builder_host.cli.build import shape_argument
from builder_host.importers.model_file import import_model_file
from builder_host.network.network import Network

Samples = npt.NDArray[np.float32]


def random_crops(
    path: Path, count: int, rng: np.random.Generator, rule: Preprocessing, shape: tuple[int, ...]
) -> Iterator[Samples]:
    """Crops of one picture as network inputs."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    width, height = picture.size
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "crop.png"
        done = 0
        while done < count:
            area = rng.uniform(0.15, 1.0) * width * height
            ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
            w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
            if not (0 < w <= width and 0 < h <= height):
                continue
            x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            crop = picture.crop((x, y, x + w, y + h))
            if rng.random() < 0.5:
                crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            if rng.random() < 1 / 3:
                brightness = rng.uniform(0.8, 1.2)
                crop = crop.point([min(255, round(v * brightness)) for v in range(256)] * 3)
            crop.save(file, compress_level=0)
            yield rule.read(file, shape)
            done += 1


def halves(
    args: argparse.Namespace, network: Network, rule: Preprocessing
) -> list[tuple[Samples, Samples]]:
    """For each half of the photographs the crops to calibrate with and those to compare on."""
    (tensor,) = network.inputs
    found = []
    paths = picture_paths(args.photos)
    for half in (paths[::2], paths[1::2]):
        sets = []
        for seed, total in ((1, args.calibration_crops), (2, args.crops // 2)):
            share = -(-total // len(half))
            crops = [
                crop
                for number, path in enumerate(half)
                for crop in random_crops(
                    path, share, np.random.default_rng([seed, number]), rule, tensor.shape[1:]
                )
            ]
            sets.append(np.stack(crops[:: max(1, len(crops) // total)][:total]))
        found.append((sets[0], sets[1]))
    return found


def joined(rows: Sequence[Accuracy]) -> dict[str, Any]:
    """Both directions in one row."""
    total = sum(row.num_samples for row in rows)
    sides = [(row.num_samples, row.against) for row in rows if row.against is not None]
    confident = sum(a.num_confident for _, a in sides)
    return {
        "crops": total,
        "same": sum(n * a.same for n, a in sides) / total,
        "confident": confident,
        "same_confident": sum(a.num_confident * a.same_confident for _, a in sides)
        / max(1, confident),
        "expected_change": sum(n * a.expected_change for n, a in sides) / total,
    }


def main() -> None:
    """Print a row per calibrator; write JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("weights", nargs="?")
    parser.add_argument("--photos", required=True)
    parser.add_argument("--preprocessing", required=True)
    parser.add_argument("--shapes", action="append", default=[], type=shape_argument)
    parser.add_argument("--crops", type=int, default=1080)
    parser.add_argument("--calibration-crops", type=int, default=100)
    parser.add_argument("--calibrators", nargs="*", default=list(CALIBRATORS))
    parser.add_argument("--json")
    args = parser.parse_args()

    def imported() -> Network:
        return import_model_file(args.model, args.weights, shapes=dict(args.shapes))

    plain = bh.BuilderConfig(measure="none", is_checked=False)
    exact = bh.build(imported(), plain).plan
    both = halves(args, imported(), load_preprocessing(args.preprocessing))
    table = {}
    print(f"{'calibrator':12} {'same class':>10} {'of sure ones':>13} {'expected':>9}")
    for name in args.calibrators:
        rows = []
        for (given, _), (_, compared) in (both, both[::-1]):
            scales = calibrate(imported(), given, CALIBRATORS[name])
            config = bh.BuilderConfig(
                measure="none", is_checked=False, precision="int8", calibration=scales
            )
            plan = bh.build(imported(), config).plan
            rows.append(evaluate_plan(plan, compared, None, against=exact))
        row = table[name] = joined(rows)
        print(
            f"{name:12} {100 * row['same']:9.2f}% {100 * row['same_confident']:12.2f}% "
            f"{100 * row['expected_change']:+8.2f}p   "
            f"{row['crops']} crops, {row['confident']} sure",
            flush=True,
        )
    if args.json:
        Path(args.json).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
