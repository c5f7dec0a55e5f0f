"""Top-1 and top-5 of a plan on labelled samples."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builder_host.calibration.batches import ArrayFile, PictureFolder, batched
from builder_host.errors import BuilderError
from builder_host.measure.local import load_context
from builder_host.network.network import Network
from planformat.plan import Plan

Array = npt.NDArray[Any]
Progress = Callable[[str, int, int], None]

_MAX_LABEL_BYTES = 256 << 20
_LINE = re.compile(r"(?P<name>.+?)(\s*,\s*|\s+)(?P<label>\S+)")


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Figures over all samples.

    Attributes:
        num_samples: samples with a label.
        top1, top5: shares of samples whose class is the best, or among the best five.
        mean_us: mean wall time of one inference, the copies of `execute` included.
        predictions: best class per sample.
    """

    num_samples: int
    top1: float
    top5: float
    mean_us: float
    predictions: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def text(self) -> str:
        """One line for people."""
        right = round(self.top1 * self.num_samples)
        return (
            f"top-1 {100 * self.top1:.2f} % ({right} of {self.num_samples}), "
            f"top-5 {100 * self.top5:.2f} %, {self.mean_us:,.0f} us per inference"
        )


def evaluate_plan(
    plan: Plan,
    samples: Iterable[Any],
    labels: Sequence[int],
    *,
    output: str | None = None,
    progress: Progress | None = None,
) -> Accuracy:
    """Run a classifier on labelled samples on this machine.

    Args:
        plan: for this machine, with the classes in one output.
        samples: as many as labels, see `calibration.batches.batched`.
        labels: class per sample.
        output: name of the output that holds the scores; None: the only one.
        progress: called with a phase's name, samples done and samples in all.

    Raises:
        BuilderError: no such output, or another number of samples than labels.
    """
    name = _score_output(plan, output)
    context = load_context(plan)
    network = network_of_plan(plan)
    best: list[int] = []
    right1 = right5 = batches = 0
    seconds = 0.0
    for arrays, count in batched(samples, network.inputs):
        start = time.perf_counter()
        scores = context.execute(arrays)[name]
        seconds += time.perf_counter() - start
        batches += 1
        rows = np.asarray(scores).reshape(network.inputs[0].shape[0], -1)[:count]
        for row in rows:
            if len(best) >= len(labels):
                raise BuilderError(f"there are more samples than the {len(labels)} labels")
            label = labels[len(best)]
            order = np.argsort(-row.astype(np.float64), kind="stable")[:5]
            best.append(int(order[0]))
            right1 += int(order[0]) == label
            right5 += label in order
        if progress is not None:
            progress("evaluate", len(best), len(labels))
    if len(best) != len(labels) or not best:
        raise BuilderError(f"{len(best)} samples for {len(labels)} labels; expected one each")
    total = len(best)
    mean_us = 1e6 * seconds / batches
    return Accuracy(total, right1 / total, right5 / total, mean_us, tuple(best))


def network_of_plan(plan: Plan) -> Network:
    """A network with the plan's inputs alone, in the shapes of its first profile."""
    network = Network(plan.name)
    shapes = plan.variants[0].profiles[0].shapes
    for binding, shape in zip(plan.bindings, shapes, strict=True):
        if binding.is_input:
            network.add_input(binding.name, shape, binding.dtype)
    return network


def labels_of(
    samples: ArrayFile | PictureFolder, path: str | os.PathLike[str], classes: Sequence[str] = ()
) -> list[int]:
    """Class per sample, in the order of the samples.

    Args:
        samples: pictures are looked up by their path in the folder, or by their file name; arrays
            take labels in order.
        path: `.npy` or `.npz` of integers in order; JSON object of name to class; or text with a
            name and a class per line (for arrays: a class per line).
        classes: names of the classes, where labels are names.

    Raises:
        BuilderError: unreadable, a sample without a label, or a class that is not known.
    """
    file = Path(path)
    if file.suffix in (".npy", ".npz"):
        return _array_labels(file, samples)
    try:
        if file.stat().st_size > _MAX_LABEL_BYTES:
            raise BuilderError(f"{path}: too large for a label file")
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BuilderError(f"{path}: cannot read the labels: {error}") from error
    numbers = {name: number for number, name in enumerate(classes)}

    def number_of(label: str, where: str) -> int:
        if label.isascii() and label.isdigit():
            return int(label)
        if label not in numbers:
            raise BuilderError(f"{where}: class '{label[:60]}' is no number and not in --classes")
        return numbers[label]

    if isinstance(samples, ArrayFile):
        lines = text.split()
        if len(lines) < len(samples):
            raise BuilderError(f"{path}: {len(lines)} labels for {len(samples)} samples")
        return [number_of(v, f"{path}: label {n}") for n, v in enumerate(lines[: len(samples)])]
    table = _json_table(text, path) if file.suffix == ".json" else _line_table(text, path)
    found = []
    for picture in samples.paths:
        names = (picture.as_posix(), picture.name, *_tails(picture))
        label = next((table[name] for name in names if name in table), None)
        if label is None:
            raise BuilderError(f"{path}: no label for picture '{picture.name}'")
        found.append(number_of(label, f"{path}: '{picture.name}'"))
    return found


def load_classes(path: str | os.PathLike[str]) -> list[str]:
    """Names of classes: one per line, or a JSON list. Raises BuilderError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        names = json.loads(text) if str(path).endswith(".json") else text.splitlines()
    except (OSError, ValueError) as error:
        raise BuilderError(f"{path}: cannot read the classes: {error}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BuilderError(f"{path}: expected a list of class names")
    return names


def _tails(picture: Path) -> list[str]:
    """The last two, three ... parts of a path: `n01440764/a.jpg`."""
    return ["/".join(picture.parts[-count:]) for count in range(2, len(picture.parts))]


def _array_labels(file: Path, samples: ArrayFile | PictureFolder) -> list[int]:
    try:
        content = np.load(file, allow_pickle=False)
        if not isinstance(content, np.ndarray):
            with content:
                names = content.files
                name = "labels" if "labels" in names else names[0]
                content = content[name]
    except (OSError, ValueError, IndexError) as error:
        raise BuilderError(f"{file}: cannot read the labels: {error}") from error
    values = np.asarray(content).reshape(-1)
    if values.dtype.kind not in "iu" or len(values) < len(samples):
        raise BuilderError(
            f"{file}: {len(values)} values of {values.dtype} for {len(samples)} samples; expected "
            "one integer each"
        )
    return [int(v) for v in values[: len(samples)]]


def _json_table(text: str, path: str | os.PathLike[str]) -> Mapping[str, str]:
    try:
        table = json.loads(text)
    except ValueError as error:
        raise BuilderError(f"{path}: cannot read the labels: {error}") from error
    if not isinstance(table, dict):
        raise BuilderError(f"{path}: expected an object of picture name to class")
    return {str(name): str(label) for name, label in table.items()}


def _line_table(text: str, path: str | os.PathLike[str]) -> Mapping[str, str]:
    table = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise BuilderError(f"{path}:{number}: '{line[:80]}' is not a picture and its class")
        table[match["name"]] = match["label"]
    return table


def _score_output(plan: Plan, output: str | None) -> str:
    outputs = [binding.name for binding in plan.bindings if not binding.is_input]
    if output is None and len(outputs) == 1:
        return outputs[0]
    if output not in outputs:
        raise BuilderError(
            f"{'name the output with the scores' if output is None else f'no output {output!r}'}; "
            f"the plan has {', '.join(outputs)}"
        )
    return output
