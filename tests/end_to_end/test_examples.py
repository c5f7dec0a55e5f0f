"""Every script of examples/README.md, run as it stands there; what it prints is checked."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from examples.mnist_api import read_wts, write_wts
from runtime_edge import probe_device

ROOT = Path(__file__).resolve().parents[2]
COMMAND = re.compile(r"`python -m (examples\.\w+)`")
# quickstart compares speeds for seconds; it is a script of its own (scripts/quickstart).
# The zoo takes minutes; test_zoo.py runs parts of it.
ELSEWHERE = {"examples.quickstart", "examples.zoo"}


def digits_of(text):
    """The digit printed for each picture, in order."""
    lines = re.findall(r"^(\d)\.pgm: (\d) with", text, re.MULTILINE)
    assert [int(name) for name, _ in lines] == list(range(10))
    return [int(found) for _, found in lines]


def check_all_ten(text):
    assert digits_of(text) == list(range(10))


def check_uff(text):
    assert digits_of(text) == [0, 1, 2, 3, 4, 5, 0, 7, 8, 9]  # as TensorFlow's


def check_mean(text):
    found = re.findall(r"^class (\d+) .*: ([\d.]+)$", text, re.MULTILINE)
    assert [int(best) for best, _ in found] == [281, 1, 270, 21]
    assert all(0.25 < float(prob) <= 1 for _, prob in found)


def check_profile(text):
    rows = re.findall(r"([\d.]+) +([\d.]+)%$", text, re.MULTILINE)
    steps, total = re.search(r"^(\d+) steps, ([\d.]+) us in all$", text, re.MULTILINE).groups()
    assert int(steps) > 60
    times = [float(time) for time, _ in rows]
    assert times == sorted(times, reverse=True)
    assert 0 < times[-1] <= times[0] <= float(total)
    np.testing.assert_allclose([100 * t / float(total) for t in times], [float(s) for _, s in rows],
                               atol=0.06)  # fmt: skip


def check_plugins(text):
    assert text.count("plugin(kernel=rows,source=") == 2
    assert 'plugin 1 Reorg/1 {"stride": 2}' in text
    assert float(re.search(r"largest difference (\S+)", text)[1]) < 1e-6


def check_faces(text):
    faces = re.findall(r"face at (\d+),(\d+) to \d+,\d+: probability ([\d.]+)", text)
    assert [(int(x), int(y)) for x, y, _ in faces] == [(300, 90), (100, 20)]
    assert all(float(prob) > 0.9 for *_, prob in faces)


def check_devices(text):
    found = re.findall(r"^(cpu|cuda:\d): (\d+) of 1000 right$", text, re.MULTILINE)
    assert len(found) == 2
    assert all(int(right) >= 989 for _, right in found)
    difference = float(re.search(r"between the devices: (\S+)$", text, re.MULTILINE)[1])
    assert difference == 0 if found[0][0] == "cpu" else difference < 1e-4


def check_batches(text):
    alone, three = (
        int(size.replace(",", ""))
        for size in re.search(r"one profile ([\d,]+) B, three ([\d,]+) B", text).groups()
    )
    assert alone < three < 1.1 * alone  # the weights are there once
    found = re.findall(r"^(\d+) pictures: (\d+) right$", text, re.MULTILINE)
    assert found == [("1", "1"), ("3", "3"), ("8", "8"), ("50", "50")]


def check_text(text):
    written = (ROOT / "tests/data/rnn/charrnn_shakespeare/the.out.txt").read_text()
    assert len(text.strip("\n")) == 64
    assert written.startswith(text[:40]) or text.startswith(written[:40])


def check_int8(text):
    rows = re.findall(r"^(\w+): (\d+) of 900 right, weights ([\d,]+) bytes$", text, re.MULTILINE)
    (wide, many, large), (narrow, fewer, small) = rows
    assert (wide, narrow) == ("fp32", "int8")
    assert int(many) >= 885
    assert int(fewer) >= int(many) - 4  # less than half a point of 900
    # A byte instead of four; two where the CPU multiplies pairs of 16-bit integers.
    features = probe_device().fields["cpu.features"]
    limit = 0.4 if "vnni" in features or "asimddp" in features else 0.6
    assert int(small.replace(",", "")) < limit * int(large.replace(",", ""))


CHECKS = {
    "examples.char_rnn": check_text,
    "examples.int8_mnist": check_int8,
    "examples.batch_profiles": check_batches,
    "examples.caffe_mnist": check_all_ten,
    "examples.caffe_mean": check_mean,
    "examples.mnist_api": check_all_ten,
    "examples.onnx_mnist": check_all_ten,
    "examples.uff_mnist": check_uff,
    "examples.googlenet_profile": check_profile,
    "examples.yolov2_plugins": check_plugins,
    "examples.two_engines": check_faces,
    "examples.two_devices": check_devices,
}
SLOW = {"examples.caffe_mean", "examples.googlenet_profile", "examples.two_engines"}


@pytest.mark.parametrize(
    "module", [pytest.param(m, marks=[pytest.mark.slow] if m in SLOW else []) for m in CHECKS]
)
def test_example(module, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [module])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / f"{module.replace('.', '/')}.py"), run_name="__main__")
    assert ended.value.code == 0
    CHECKS[module](capsys.readouterr().out)


def test_the_page_lists_every_example():
    listed = set(COMMAND.findall((ROOT / "examples" / "README.md").read_text()))
    assert listed == {*CHECKS, *ELSEWHERE}
    scripts = {
        f"examples.{path.stem}"
        for path in (ROOT / "examples").glob("*.py")
        if "def main()" in path.read_text()
    }
    assert listed == scripts


def test_weights_files_are_read_as_they_were_written(tmp_path):
    values = np.array([0.0, -0.0, 1.5, -3.25e-30, np.inf], np.float32)
    write_wts(tmp_path / "w.wts", {"first": values, "second": values[:0].reshape(0, 2)})
    found = read_wts(tmp_path / "w.wts")
    assert found["first"].tobytes() == values.tobytes()
    assert found["second"].size == 0
    lines = (tmp_path / "w.wts").read_text().splitlines()
    assert lines[:1] == ["2"]
    assert lines[1].split()[:5] == ["first", "0", "5", "0", "80000000"]
    (tmp_path / "w.wts").write_text("2\n" + lines[1] + "\n")
    with pytest.raises(SystemExit, match="has 1 arrays, its first line says 2"):
        read_wts(tmp_path / "w.wts")
