"""A plan is refitted as it was fused, whatever the cost models would fuse."""

from __future__ import annotations

import pytest
from support.cases import DATA

from builder_host.builder import build
from builder_host.config import BuilderConfig
from builder_host.importers.caffe.model import import_caffe
from builder_host.passes import fuse_pooling
from builder_host.refit.refit import refit_plan
from planformat.details import plan_details

FILES = (DATA / "caffe/lenet/lenet.prototxt", DATA / "caffe/lenet/lenet_iter_9000.caffemodel")


@pytest.mark.parametrize("tolerance", [-2.0, 1e9])
def test_what_was_fused_by_times_is_fused_again(tolerance, monkeypatch):
    config = BuilderConfig(measure="none", is_checked=False)
    with monkeypatch.context() as patch:
        patch.setattr(fuse_pooling, "TOLERANCE", tolerance)
        built = build(import_caffe(*FILES), config)
    (rows,) = plan_details(built.plan).variants[0]
    kinds = [row.kind for row in rows.operations]
    assert kinds.count("pooled_convolution") == (2 if tolerance > 0 else 0)
    data = built.to_bytes()
    same = refit_plan(data, import_caffe(*FILES), must_be_same=True)
    assert bytes(same.data) == bytes(data)
    other = refit_plan(data, import_caffe(FILES[0]), is_checked=True)
    assert not other.is_same
    assert all(error < 1e-5 for error in other.accuracy.values())
