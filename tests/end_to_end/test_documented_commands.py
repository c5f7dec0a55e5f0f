"""The commands of README.md and of the how-to pages, typed as they stand, on small networks.

`model.onnx` and its companions are networks of tests/data under the names that the pages use. What
needs a board, a GPU or the network is in ELSEWHERE with the reason; test_documentation.py parses it
like all others. The plugin page is run by test_plugins.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from support.agents import AgentProcess
from support.cases import DATA
from support.documentation import PAGES, ROOT, SHELL, blocks, commands, python_blocks
from support.serving import serving

from builder_host.planexec.main import main as planexec
from runtime_edge.cli import main as edgeplan

# Commands that are not run: pattern of "page: command", and why.
ELSEWHERE = {
    r"toolchain install": "needs the network",
    r"--target (jetson|board\.json)": "needs a CUDA toolkit, and the board's file",
    r"README.md: edgeplan tune": "its bundle is for the GPU of board.json",
    r"agent --tcp 0\.0\.0\.0|/etc/edgeplan": "the board's end; an agent runs in its place",
    r"bundle detector=|deploy \. |deploy \$plan|/tmp/plans|\$store": "parts of updaters' scripts",
    r"serve --config": "the example file names plans of a board",
}
# Lines of shell blocks that are no commands of edgeplan: pattern of "page: line", and why.
OTHER_LINES = {
    r": scripts/quickstart\b": "test_the_quick_start_script",
    r": scripts/test\b": "these tests",
    r": pip install ": "packages of an index",
    r"emulated-board.md: ": "needs QEMU and Debian's packages: tests/emulated",
    r"deploying.md: ": "scripts and recipes of updaters, which are not installed here",
    r"design.md: ": "a picture",
    r"style.md: ": "the layout of the repository",
    r"migrating-from-tensorrt.md: .*import": "import lines: tests/tensorrt",
}
# Pages with Python that no test of this file runs, and who does.
PYTHON_ELSEWHERE = {
    "docs/plugins.md": "test_plugins.py",
    "docs/style.md": "shows a docstring",
}
# What stands for the pages' names.
NAMES = {
    "input,3,224,224": "input_layer_1,1,28,28",
    "my_layers.py": "my_plugins.py",
    "detector.plan": "model.plan",
    "squeezenet=squeezenet.plan": "squeezenet=model.plan",
    "data=picture.npy": "data=input.npy",
    "--duration=5": "--duration=1",
}
# What a page takes as done, by the beginning of the command that needs it.
BEFORE = {
    ("README.md", "edgeplan verify"): (
        ["keygen", "release"],
        ["sign", "model.plan", "--key", "release.key"],
    ),
}
BUILD = ["build", "model.onnx", "-o", "model.plan", "--measure", "none"]
BUILT_BEFORE = {
    "docs/daemon.md",
    "docs/deploying.md",
    "docs/inspecting.md",
    "docs/performance.md",
    "docs/running.md",
    "docs/threat-model.md",
}
# Pages whose Python is run, and how the plan that they load is built.
PYTHON = {
    "README.md": (),
    "docs/defining.md": (),
    "docs/profiles.md": ("--batch", "1,4,8"),
    "docs/quick-start.md": (),
    "docs/running.md": (),
}
STATUS = {"edgeplan explain model.plan --device jetson-agx-orin": 4}  # it is a CPU plan
WITH_BOARD = {"README.md", "docs/building.md", "docs/deploying.md"}
FAST = ("docs/quick-start.md", "docs/threat-model.md", "docs/daemon.md")
SLOW = (
    "README.md",
    "docs/building.md",
    "docs/deploying.md",
    "docs/importing.md",
    "docs/inspecting.md",
    "docs/performance.md",
    "docs/planexec.md",
    "docs/precision.md",
    "docs/profiles.md",
)
# Pages whose commands run elsewhere or nowhere, and why.
OTHER_PAGES = {
    "docs/boards.md": "installs and lists CUDA toolkits: needs the network",
    "docs/emulated-board.md": "needs QEMU and Debian's packages: tests/emulated",
    "docs/plugins.md": "test_plugins.py",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The files that the pages speak of."""
    monkeypatch.chdir(tmp_path)
    model = onnx.load(DATA / "onnx" / "samplenet" / "samplenet.onnx")
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    model.graph.output[0].name = model.graph.node[-1].output[0] = "prob"
    onnx.save(model, "model.onnx")
    rows = np.random.default_rng(7).normal(size=(6, 3, 32, 32)).astype(np.float32)
    np.save("input.npy", rows[:1])
    np.save("six.npy", rows)
    shutil.copy(DATA / "uff" / "allcnn" / "all_cnn.uff", "model.uff")
    shutil.copy(DATA / "caffe" / "lenet" / "lenet.prototxt", "lenet.prototxt")
    shutil.copy(DATA / "caffe" / "lenet" / "lenet_iter_9000.caffemodel", "lenet.caffemodel")
    for name in ("photos", "val"):
        (tmp_path / name).mkdir()
        for picture in (DATA / "images").glob("*.jpg"):
            shutil.copy(picture, name)
    (tmp_path / "val.txt").write_text(
        "".join(f"{picture.name} 3\n" for picture in (tmp_path / "val").iterdir())
    )
    (tmp_path / "photos.toml").write_text(
        "size = [32, 32]\nmean = [125.3, 123.0, 113.9]\nstd = [51.6, 50.8, 51.3]\n"
    )
    ((_, source),) = python_blocks("docs/plugins.md")[:1]
    (tmp_path / "my_plugins.py").write_text(source)
    return tmp_path


@pytest.mark.parametrize(
    "page", [*FAST, *(pytest.param(page, marks=pytest.mark.slow) for page in SLOW)]
)
def test_commands_of(page, folder, capsys):
    if page in BUILT_BEFORE:
        assert edgeplan(BUILD) == 0, capsys.readouterr().err
    ran = 0
    with contextlib.ExitStack() as stack:
        names = dict(NAMES)
        if page in WITH_BOARD:
            assert edgeplan(["link-key", "link.key"]) == 0
            agent = AgentProcess(folder / "store", options=["--link-key", "link.key"])
            stack.callback(agent.stop)
            names["tcp://board:7417"] = agent.address
        for command in commands(page):
            if any(re.search(p, f"{page}: {command.text}") for p in ELSEWHERE):
                continue
            if not command.is_whole:
                continue
            words = [names.get(word, word) for word in command.words[1:]]
            for first in next((f for (p, t), f in BEFORE.items()
                               if p == page and command.text.startswith(t)), ()):  # fmt: skip
                assert edgeplan(first) == 0, capsys.readouterr().err
            if words[:1] == ["diff"] and "old.plan" in words:
                shutil.copy("model.plan", "old.plan")
                shutil.copy("model.plan", "new.plan")
            capsys.readouterr()
            if words[0] == "serve":
                served = stack.enter_context(serving(folder, *words[1:]))
                ran += 1
                continue
            if words[0] == "client":
                words += ["--url", served.url]
            run = planexec if command.words[0] == "planexec" else edgeplan
            status = run(words)
            printed = capsys.readouterr()
            assert status == STATUS.get(command.text, 0), f"{command}\n{printed.err}{printed.out}"
            assert printed.out or "-o" in words, f"{command} printed nothing"
            if command.output:
                (folder / command.output).write_text(printed.out)
            ran += 1
    assert ran >= 2


@pytest.mark.parametrize("page", PYTHON)
def test_python_of(page, folder):
    """The blocks of a page are one program, in the order in which they stand."""
    assert edgeplan([*BUILD, *PYTHON[page]]) == 0
    names = {}
    for line, source in python_blocks(page):
        text = source.replace("(1, 3, 224, 224)", "(1, 3, 32, 32)")
        exec(compile("\n" * (line - 1) + text, page, "exec"), names)
    assert names


def test_every_page_with_commands_is_run_or_has_a_reason():
    assert {page for page in PAGES if commands(page)} - {*FAST, *SLOW} <= {*OTHER_PAGES}


def test_every_reason_is_needed():
    pages = [*FAST, *SLOW, "docs/boards.md"]
    texts = [f"{page}: {command.text}" for page in pages for command in commands(page)]
    for pattern in ELSEWHERE:
        assert any(re.search(pattern, text) for text in texts), pattern


def test_every_page_with_python_is_run_or_has_a_reason():
    pages = {page for page in PAGES if python_blocks(page)}
    assert pages == {*PYTHON, *PYTHON_ELSEWHERE}


def other_lines():
    """Lines of shell blocks without a command of edgeplan, as "page: line"."""
    for page in PAGES:
        taken = {command.line for command in commands(page)}
        for number, language, line in blocks(page):
            text = line.strip()
            if language in SHELL and text and number not in taken and not text.startswith("#"):
                yield f"{page}: {text}"


def test_no_line_of_a_shell_block_is_left_out_without_a_reason():
    lines = list(other_lines())
    known = [line for line in lines if any(re.search(p, line) for p in OTHER_LINES)]
    assert sorted(set(lines) - set(known)) == []
    for pattern in OTHER_LINES:
        assert any(re.search(pattern, line) for line in lines), pattern
    assert not [c for page in PAGES for c in commands(page) if not c.is_whole]


@pytest.mark.slow
def test_the_quick_start_script(tmp_path):
    """The first command of the README, in an environment that is complete already."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    (tmp_path / "venv" / ".edgeplan-demo").write_text(f"{wanted}\n")
    done = subprocess.run(
        [ROOT / "scripts" / "quickstart"],
        env={**os.environ, "EDGEPLAN_VENV": str(tmp_path / "venv")},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"goldfish\.jpg:\n +\d+\.\d+  goldfish\n", done.stdout)
    assert re.search(r"relative error \d\.\de-0[3-9] against float64", done.stdout)
    assert re.search(r"ratio +\d+\.\d+ x", done.stdout)
