"""Classify every picture that appears in a folder, such as a camera's spool.

    python watch_folder.py FOLDER --model squeezenet --shape 1x3x227x227 --size 227x227

A picture counts as complete when its name has no leading dot: cameras and `mv` rename into place.
When the daemon is busy (503) the picture waits as long as the daemon advises; nothing is lost.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image

from runtime_edge.serve.client import Client, ClientError, TensorValue

SUFFIXES = (".png", ".jpg", ".jpeg", ".pgm", ".ppm", ".bmp")


def main() -> None:
    """Watch until interrupted, or until --count pictures are done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", required=True)
    parser.add_argument("--shape", default="1x3x227x227", help="of the input")
    parser.add_argument("--size", default="227x227", help="WIDTHxHEIGHT to resize to")
    parser.add_argument("--mean", type=float, nargs="*", default=[0.0], help="subtracted")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplied with, last")
    parser.add_argument("--bgr", action="store_true", help="channels as Caffe has them")
    parser.add_argument("--grey", action="store_true")
    parser.add_argument("--count", type=int, default=0, help="stop after so many pictures")
    args = parser.parse_args()
    client = Client(args.url)
    (entry,) = client.get(f"/v2/models/{args.model}")["inputs"]
    seen: set[str] = set()
    while not args.count or len(seen) < args.count:
        fresh = [p for p in sorted(args.folder.iterdir()) if is_picture(p) and p.name not in seen]
        for path in fresh:
            x = read_picture(path, args)
            tensor = TensorValue(entry["name"], entry["datatype"], x.shape, x.tobytes())
            output = infer(client, args.model, tensor)
            print(f"{path.name}: class {output.argmax()}, {output.max():.4f}", flush=True)
            seen.add(path.name)
        if not fresh:
            time.sleep(0.05)


def is_picture(path: Path) -> bool:
    """Whether a file is complete and a picture, by its name."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def read_picture(path: Path, args: argparse.Namespace) -> np.ndarray:
    """The picture as the network takes it: float32, channels first."""
    width, height = map(int, args.size.split("x"))
    with Image.open(path) as image:
        image = image.convert("L" if args.grey else "RGB").resize((width, height))
        pixels = np.asarray(image, np.float32)
    pixels = pixels.reshape(height, width, -1)
    if args.bgr:
        pixels = pixels[..., ::-1]
    pixels = (pixels - np.float32(args.mean)) * np.float32(args.scale)
    shape = tuple(map(int, args.shape.split("x")))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)).reshape(shape)


def infer(client: Client, model: str, tensor: TensorValue) -> np.ndarray:
    """One inference, repeated while the daemon is busy."""
    while True:
        try:
            (output,) = client.infer(model, [tensor])
            return np.frombuffer(output.data, np.float32)
        except ClientError as error:
            if error.status != 503:
                raise
            time.sleep(error.retry_after_s or 1)


if __name__ == "__main__":
    main()
