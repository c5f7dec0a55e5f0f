"""Two engines around a step of one's own, on one stream: find faces, cut them out, look closer.

python -m examples.two_engines [PICTURE.jpg]

The first network of MTCNN looks at the whole picture; Python cuts out the best two places; the
second network rates them. Nothing waits in between: all three are enqueued at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

import builder_host as bh
import runtime_edge as rt
from examples.digits import DATA

MTCNN = DATA / "caffe" / "mtcnn"
PICTURE = DATA / "images" / "mtcnn_test1.jpg"
SHRINK = 5  # faces are then about 12 pixels high, which is what the first network looks for
STRIDE, WINDOW = 2 * SHRINK, 12 * SHRINK  # of the first network's outputs, in the picture's pixels
NUM_FACES = 2

Array = npt.NDArray[Any]


def as_input(picture: Image.Image) -> Array:
    """float32 [3, width, height] in -1 .. 1: MTCNN was trained on transposed pictures."""
    return ((np.asarray(picture, np.float32) - 127.5) / 128).transpose(2, 1, 0)


def engine_of(name: str, shape: tuple[int, ...]) -> rt.Engine:
    """A plan of one of the networks for an input shape."""
    files = (MTCNN / f"{name}.prototxt", MTCNN / f"{name}.caffemodel")
    network = bh.import_caffe(*files, shapes={"data": shape})
    return rt.load(bh.build(network, bh.BuilderConfig(measure="none")).to_bytes())


def best_places(prob: Array) -> list[tuple[int, int]]:
    """The likeliest places (left, top) that do not overlap, in the picture's pixels."""
    found: list[tuple[int, int]] = []
    for index in np.argsort(-prob, axis=None):
        left, top = (int(i) * STRIDE for i in np.unravel_index(index, prob.shape))
        if all(max(abs(left - x), abs(top - y)) >= WINDOW for x, y in found):
            found.append((left, top))
        if len(found) == NUM_FACES:
            break
    return found


def main() -> int:
    """Enqueue both networks and the step between them, then print the faces."""
    picture = Image.open(Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE).convert("RGB")
    small = picture.resize((picture.width // SHRINK, picture.height // SHRINK))
    image = np.ascontiguousarray(as_input(small)[None])
    first = engine_of("det1", image.shape)
    second = engine_of("det2", (NUM_FACES, 3, 24, 24))

    def outputs_of(engine: rt.Engine) -> dict[str, Array]:
        names = [b.name for b in engine.bindings if not b.is_input]
        return {name: np.zeros(engine.binding_shape(name), np.float32) for name in names}

    coarse, fine = outputs_of(first), outputs_of(second)
    crops = np.zeros((NUM_FACES, 3, 24, 24), np.float32)
    places: list[tuple[int, int]] = []

    def cut_out() -> None:
        """Runs on the stream, between the two networks."""
        places.extend(best_places(coarse["prob1"][0, 1]))
        for number, (left, top) in enumerate(places):
            box = (left, top, left + WINDOW, top + WINDOW)
            crops[number] = as_input(picture.crop(box).resize((24, 24)))

    with first.create_context() as find, second.create_context() as rate:
        stream = first.create_stream()
        find.enqueue({"data": image, **coarse}, stream)
        stream.call(cut_out)
        rate.enqueue({"data": crops, **fine}, stream)
        stream.synchronize()
    for (left, top), prob in zip(places, fine["prob1"][:, 1], strict=True):
        print(f"face at {left},{top} to {left + WINDOW},{top + WINDOW}: probability {prob:.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
