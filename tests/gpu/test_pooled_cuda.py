"""Convolutions that pool in their store, on this machine's GPU: whole plans against float64."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.pooled_networks import MODELS, image, reference

import builder_host as bh
import runtime_edge as rt
from builder_host.importers.onnx import import_onnx
from builder_host.tune.timing_cache import load_timing_cache

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("way", ["fused", "apart"])
@pytest.mark.parametrize("name", list(MODELS))
def test_both_ways_are_right(tmp_path: Path, name: str, way: str) -> None:
    """Timed first; then the cache is told that one way is fast, which a strict build believes."""
    network = import_onnx(MODELS[name].SerializeToString())
    cache_path = tmp_path / "timings"
    config = bh.BuilderConfig(
        target="cuda", precision="fp16", timing_cache=cache_path, artifact_dir=tmp_path / "a"
    )
    bh.build(network, config)
    cache = load_timing_cache(cache_path)
    timed = [item for item in cache if item[0].problem.startswith("pooled_convolution|")]
    failed = [(key.tactic, timing.error) for key, timing in timed if timing.median_us is None]
    assert timed
    assert not failed
    for key, timing in timed:
        cache.put(key, replace(timing, median_us=1e-3 if way == "fused" else 1e6))
    cache.save(cache_path)
    built = bh.build(network, replace(config, is_strict_cache=True))
    families = [row.tactic.partition("(")[0] for row in built.report.operations]
    assert ("cuda_conv_pool" in families) == (way == "fused"), families
    built.save(tmp_path / "m.plan")
    with rt.load(tmp_path / "m.plan") as engine, engine.create_context() as context:
        (found,) = context.execute({engine.bindings[0].name: image()}).values()
    wanted = reference(MODELS[name], image())
    # Each of at most five layers rounds its operands and its result to 11 bits, at random signs.
    assert np.abs(found - wanted).max() <= 5 * 2 * 2.0**-11 * np.abs(wanted).max()
