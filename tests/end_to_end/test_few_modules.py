"""A CUDA plan whose kernels were compiled together runs on the stand-in GPU and is right."""

from __future__ import annotations

import json

from support.cases import DATA
from support.emulated_gpu import edgeplan_with_gpu

from planformat.reader import read_plan

LENET = (DATA / "caffe/lenet/lenet.prototxt", DATA / "caffe/lenet/lenet_iter_9000.caffemodel")


def test_kernels_of_one_module_compute_the_reference(tmp_path):
    path = tmp_path / "lenet.plan"
    options = ("--target", "cuda", "--precision", "fp16", "--measure", "none", "--json")
    status, told, messages = edgeplan_with_gpu(
        "build", *LENET, "-o", path, "--shapes", "data:1x1x28x28", *options
    )
    assert status == 0, messages
    assert json.loads(told)["accuracy"]["prob"] < 1e-2  # it ran, and was compared with float64
    variant = read_plan(path.read_bytes()).variants[0]
    assert len(variant.kernels) >= 5
    assert len(variant.code_objects) < len(variant.kernels) / 2
