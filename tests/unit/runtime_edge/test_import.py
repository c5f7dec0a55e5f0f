"""Importing the runtime is cheap and pulls in nothing that a board may lack."""

from __future__ import annotations

import json
import subprocess
import sys

import runtime_edge

LOAD = """
import json, sys, time
start = time.perf_counter()
import runtime_edge
imported = time.perf_counter()
runtime_edge.load
import runtime_edge.device.cpu
print(json.dumps([sorted(sys.modules), imported - start]))
"""


def test_loading_needs_neither_numpy_nor_the_builder():
    command = [sys.executable, "-c", LOAD]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    modules, _ = json.loads(done.stdout)
    tops = {name.partition(".")[0] for name in modules}
    assert not tops & {"numpy", "builder_host", "boards", "nacl", "onnx", "pycuda"}


def test_import_alone_brings_no_module_beyond_the_package():
    command = [sys.executable, "-c", LOAD.replace("runtime_edge.load\nimport", "import sys #")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    modules, _ = json.loads(done.stdout)
    assert [name for name in modules if name.startswith(("runtime_edge", "planformat"))] == [
        "runtime_edge"
    ]


def test_public_names():
    for name in runtime_edge.__all__:
        assert getattr(runtime_edge, name).__name__ == name
    assert set(runtime_edge.__all__) <= set(dir(runtime_edge))
