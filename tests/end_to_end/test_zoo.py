"""The zoo script on some of its networks: what it prints, and that wrong answers are noticed."""

from __future__ import annotations

import json
import re
import shutil
import sys

import numpy as np
import pytest
from support.cases import DATA, case, load
from support.cases import preprocessed as formula_of_tests

from examples import zoo
from examples.zoo_cases import UnusableCaseError, preprocessed


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["zoo", *map(str, arguments)])
    status = zoo.main()
    return status, capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("onnx/mnist/test_data_0", 1),
        ("uff/ppo/*", 1),
        ("caffe/layers/layer_[ls]*", 2),
        pytest.param("onnx/tract/*", 3, marks=pytest.mark.slow),
        pytest.param("uff/tf/kws/*", 2, marks=pytest.mark.slow),
        pytest.param("rnn/silero/*", 1, marks=pytest.mark.slow),
        pytest.param("rnn/dtln/*", 1, marks=pytest.mark.slow),
        pytest.param("caffe/lenet/*", 2, marks=pytest.mark.slow),
        pytest.param("caffe/wechat_qr/*", 1, marks=pytest.mark.slow),
    ],
)
def test_networks_agree(pattern, count, monkeypatch, capsys):
    status, lines = run(monkeypatch, capsys, "--only", pattern)
    assert status == 0, lines
    assert lines[0].split()[:2] == ["network", "steps"]
    assert lines[-1] == f"{count} agrees, 0 differs, 0 left out"
    for line in lines[1:-1]:
        steps, weights, arena, bound, seconds = map(float, line.split()[1:6])
        assert steps >= 1
        assert weights >= 0
        assert arena >= bound >= 0
        assert seconds > 0
        error = re.search(r"largest error (\S+), allowed (\S+): agrees$", line)
        assert error is None or float(error[1]) <= float(error[2])


def test_what_has_no_network_is_left_out(monkeypatch, capsys):
    status, lines = run(monkeypatch, capsys, "--only", "onnx/conformance/simple")
    assert status == 1  # nothing was checked
    assert lines[-1] == "0 agrees, 0 differs, 1 left out"


def test_a_wrong_answer_differs(tmp_path, monkeypatch, capsys):
    (row,) = (
        r
        for r in json.loads((DATA / "cases.json").read_text())["cases"]
        if r["id"] == "onnx/mnist/test_data_0"
    )
    for name in (*row["model"], *row["input"].values(), *row["outputs"].values()):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(DATA / name, tmp_path / name)
    ((_, stored),) = row["outputs"].items()
    values = np.load(tmp_path / stored)
    values.flat[3] += 0.01
    np.save(tmp_path / stored, values)
    (tmp_path / "cases.json").write_text(json.dumps({"cases": [row]}))
    status, lines = run(monkeypatch, capsys, "--data", tmp_path)
    assert status == 1
    assert re.search(r"largest error 1\.0e-02, allowed 1e-03: differs$", lines[1])


@pytest.mark.parametrize(
    "case_id",
    [
        "caffe/lenet/digits",
        "caffe/samplenet/two",
        "caffe/mtcnn/det1_pair",
        "caffe/squeezenet_v1.1/four",
        "onnx/classify/squeezenet_fp16",
        "onnx/yunet/pair",
    ],
)
def test_formulas_are_those_of_the_conformance_table(case_id):
    one = case(case_id)
    (path,) = one.inputs.values()
    found = preprocessed(one.preprocess, load(path))
    expected = formula_of_tests(one, load(path))
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(
        found.astype(np.float64), expected.astype(np.float64), rtol=1e-6, atol=1e-6
    )


def test_pixels_with_an_unknown_formula_are_refused():
    with pytest.raises(UnusableCaseError, match="no formula is known for 'as they like'"):
        preprocessed("as they like", np.zeros((1, 3, 2, 2), np.uint8))
