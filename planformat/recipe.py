"""What a plan was built from and with which options: enough to pack other weights for it.

Part of section DETAILS (SPEC.md section 4.5). Times are not in it: tactics are chosen already.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any

from planformat.details_fields import count, field, items, magnitude, mapping, text, whole

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file of the model. name: printable, without folders; sha256: hexadecimal."""

    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class BuildRecipe:
    """Options that decide about layers, precisions and layouts.

    Attributes:
        files: of the model, the network first; empty where a program defined the network.
        outputs: tensors that were made outputs instead of the model's own; empty: the model's own.
        image_order: `NCHW` or `NHWC`, of images at inputs and outputs of a UFF network.
        precision: of layers that no rule names.
        layer_rules: patterns of layer names and precisions; tensor_rules: of tensor names.
        scales: of calibration and dynamic ranges: value of one step of 127 by tensor name.
        largest: largest magnitude seen by tensor name.
        hardware: facts of the target's board file by name.
    """

    files: tuple[ModelFile, ...] = ()
    outputs: tuple[str, ...] = ()
    image_order: str = "NCHW"
    precision: str = "fp32"
    layer_rules: tuple[tuple[str, str], ...] = ()
    tensor_rules: tuple[tuple[str, str], ...] = ()
    scales: Mapping[str, float] = dataclass_field(default_factory=dict)
    largest: Mapping[str, float] = dataclass_field(default_factory=dict)
    hardware: Mapping[str, int | float] = dataclass_field(default_factory=dict)


def read_recipe(tree: Any) -> BuildRecipe:
    """A recipe from its JSON. Raises TypeError or ValueError that names what is wrong."""
    return BuildRecipe(
        files=tuple(_file(row) for row in items(field(tree, "files"))),
        outputs=tuple(_text_of(name, "an output") for name in items(field(tree, "outputs"))),
        image_order=text(tree, "image_order"),
        precision=text(tree, "precision"),
        layer_rules=_rules(tree, "layer_rules"),
        tensor_rules=_rules(tree, "tensor_rules"),
        scales=_magnitudes(tree, "scales"),
        largest=_magnitudes(tree, "largest"),
        hardware={
            name: whole(value, f"'hardware' '{name}'")
            if isinstance(value, int)
            else magnitude(value, f"'hardware' '{name}'")
            for name, value in mapping(field(tree, "hardware")).items()
        },
    )


def _file(tree: Any) -> ModelFile:
    file = ModelFile(text(tree, "name"), count(tree, "num_bytes"), text(tree, "sha256"))
    if not file.name.isprintable():
        raise ValueError(f"the name of a file, {file.name!r:.80}, holds what cannot be printed")
    if not _SHA256.fullmatch(file.sha256):
        raise ValueError(f"the SHA-256 of '{file.name:.80}' is {file.sha256!r:.80}")
    return file


def _rules(tree: Any, name: str) -> tuple[tuple[str, str], ...]:
    found = []
    for row in items(field(tree, name)):
        pair = [_text_of(part, f"a part of '{name}'") for part in items(row)]
        if len(pair) != 2:
            raise ValueError(f"'{name}' has a row of {len(pair)} texts, not of 2")
        found.append((pair[0], pair[1]))
    return tuple(found)


def _magnitudes(tree: Any, name: str) -> dict[str, float]:
    return {
        key: magnitude(value, f"'{name}' of '{key}'")
        for key, value in mapping(field(tree, name)).items()
    }


def _text_of(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} is {type(value).__name__}, not a text")
    return value
