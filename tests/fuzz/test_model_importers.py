"""Damaged UFF files and frozen graphs: they import, or are refused with a report; nothing else."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import DATA
from support.uff_models import CK, HWCK, NC, NHWC, UffFile

from builder_host.errors import ImportModelError
from builder_host.importers.tensorflow.model import import_tensorflow
from builder_host.importers.uff.model import import_uff


def small_uff() -> bytes:
    """A file with most kinds of fields, of some 2 kB."""
    file = UffFile()
    file.input("x", (-1, 6, 6, 2))
    generator = np.random.default_rng(0)
    file.constant("k", generator.standard_normal((3, 3, 2, 3)).astype(np.float32))
    file.constant("b", generator.standard_normal(3).astype(np.float32))
    file.constant("w", generator.standard_normal((12, 4)).astype(np.float32))
    file.constant("shape", np.asarray([-1, 12], np.int32))
    file.node(
        "conv",
        "Conv",
        "x",
        "k",
        inputs_orders=[NHWC, HWCK],
        strides=[1, 1],
        implicit_padding="same",
    )
    file.node("bias", "Binary", "conv", "b", func="add")
    file.node("relu", "Activation", "bias", func="relu")
    file.node(
        "pool", "Pool", "relu", func="max", kernel=[3, 3], strides=[3, 3], inputs_orders=[NHWC]
    )
    file.node("flat", "Reshape", "pool", "shape")
    file.node("full", "FullyConnected", "flat", "w", inputs_orders=[NC, CK])
    file.node("soft", "Softmax", "full", axis=0)
    file.node("mean", "Reduce", "soft", func="mean", axes=[1], keepdims=True)
    file.output("mean")
    return file.message.SerializeToString()


def graph_head() -> bytes:
    """The keyword spotter with a loop, its large constants cut out."""
    from builder_host.importers.tensorflow import schema

    message = schema.message_class("GraphDef")()
    message.ParseFromString((DATA / "uff" / "tf" / "kws" / "GRU_S.pb").read_bytes())
    for node in message.node:
        tensor = node.attr["value"].tensor if node.op == "Const" else None
        if tensor is not None and len(tensor.tensor_content) > 64:
            tensor.tensor_content = b""
            tensor.float_val.append(0.01)
    return message.SerializeToString()


SEEDS = {
    "uff": (small_uff(), lambda path: import_uff(path)),
    "tensorflow": (
        graph_head(),
        lambda path: import_tensorflow(path, shapes={"Mfcc": (1, 25, 10)}),
    ),
}


@pytest.mark.parametrize("kind", SEEDS)
def test_the_seeds_import(kind, tmp_path):
    content, load = SEEDS[kind]
    (tmp_path / "m").write_bytes(content)
    assert load(tmp_path / "m").outputs


@pytest.mark.parametrize("kind", SEEDS)
@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_damage_is_reported(kind, data):
    content, load = SEEDS[kind]
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        action = data.draw(st.sampled_from(["flip", "set", "cut", "insert", "copy"]))
        if action == "flip":
            damaged[at] ^= 1 << data.draw(st.integers(0, 7))
        elif action == "set":
            damaged[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
        elif action == "cut":
            del damaged[at : at + data.draw(st.integers(1, 8))]
        elif action == "insert":
            damaged[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        else:
            damaged[at:at] = damaged[at : at + 40]
        if not damaged:
            break
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m"
        path.write_bytes(damaged)
        with contextlib.suppress(ImportModelError):
            assert load(path).outputs
