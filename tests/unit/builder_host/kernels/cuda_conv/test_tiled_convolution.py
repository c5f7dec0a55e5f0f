"""What families of one tiled template share belongs to the timing keys of each of them."""

from __future__ import annotations

import runpy

import pytest

from builder_host.kernels.cuda_conv_dp4a import family as dp4a
from builder_host.kernels.cuda_conv_simt import tiled
from builder_host.kernels.cuda_conv_tf32 import family as tf32


@pytest.mark.parametrize("module", [dp4a, tf32])
def test_a_change_of_the_shared_part_changes_the_template_hash(module, monkeypatch) -> None:
    assert runpy.run_path(module.__file__)["FAMILY"].template_hash == module.FAMILY.template_hash
    monkeypatch.setattr(tiled, "TILED_SOURCE", tiled.TILED_SOURCE + "\n")
    assert runpy.run_path(module.__file__)["FAMILY"].template_hash != module.FAMILY.template_hash
