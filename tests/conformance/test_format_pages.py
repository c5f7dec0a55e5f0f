"""docs/caffe-uff-tensorflow.md lists exactly what the importers know."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from builder_host.importers.caffe.registry import converters as caffe_layers
from builder_host.importers.tensorflow.operations import CONVERTERS
from builder_host.importers.uff.registry import converters as uff_operations

PAGE = Path(__file__).resolve().parents[2] / "docs" / "caffe-uff-tensorflow.md"


@pytest.mark.parametrize(
    ("heading", "known"),
    [
        ("## Caffe", caffe_layers()),
        ("## UFF", uff_operations()),
        ("## Frozen TensorFlow graphs", CONVERTERS),
    ],
)
def test_lists_are_complete(heading, known):
    section = PAGE.read_text().split(f"{heading}\n")[1].split("\n## ")[0]
    (listed,) = re.findall(r"(?:Layer types|Operations): ([^.;]*)[.;]", section)
    assert re.findall(r"`(\w+)`", listed) == sorted(known)
