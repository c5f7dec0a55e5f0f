"""The worked example of docs/plugins.md, typed as it stands there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from support.commands import edgeplan

ROOT = Path(__file__).resolve().parents[2]


def write_model(path: Path) -> None:
    """Write x -> Crelu(gain 0.5) -> Relu -> y, [2,3,5,7]."""
    nodes = [
        helper.make_node("Crelu", ["x"], ["c"], "crelu", domain="com.example", gain=0.5),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 3, 5, 7))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), path)


def test_worked_example(tmp_path):
    page = (ROOT / "docs" / "plugins.md").read_text()
    (source,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (commands,) = re.findall(r"```\n(edgeplan .*?)```", page, re.DOTALL)
    (tmp_path / "my_plugins.py").write_text(source)
    write_model(tmp_path / "model.onnx")
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 7)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)

    build, run = (line.split()[1:] for line in commands.strip().splitlines())
    edgeplan(*build, "--threads", 1, cwd=tmp_path)
    (tmp_path / "my_plugins.py").unlink()  # the plan holds everything
    edgeplan(*run, cwd=tmp_path)
    (path,) = (tmp_path / "out").glob("*.npy")
    expected = np.concatenate([np.maximum(x, 0), np.maximum(-x, 0)], axis=1) * np.float32(0.5)
    np.testing.assert_array_equal(np.load(path), expected)

    shown = edgeplan("inspect", "model.plan", "--json", cwd=tmp_path)
    assert json.loads(shown.stdout)["provenance"]["plugin 1 Crelu/1"] == '{"gain": 0.5}'


def test_a_missing_plugin_file_is_named(tmp_path):
    write_model(tmp_path / "model.onnx")
    arguments = ("build", "model.onnx", "-o", "m.plan", "--plugins", "absent.py")
    done = edgeplan(*arguments, cwd=tmp_path, status=1)
    assert "absent.py: no such plugin file" in done.stderr
