"""Plans of models with bfloat16 inputs and outputs: raw bits at the edges, float32 inside."""

import ml_dtypes
import numpy as np

import builder_host as bh
import runtime_edge as rt
from builder_host.expressions import Binary, Const, Input
from builder_host.network.layers.pointwise import PointwiseParams
from planformat.datatypes import DataType


def test_a_bfloat16_network_is_checked_built_and_runs(tmp_path):
    network = bh.Network("bf16")
    x = network.add_input("x", (2, 3), DataType.BFLOAT16)
    expr = Binary("mul", Binary("add", Input(0), Const(1.0)), Const(3.0))
    network.mark_output(network.add_layer("pointwise", PointwiseParams(expr), [x]).output, "y")
    config = bh.BuilderConfig(measure="none", num_threads=1, artifact_dir=tmp_path)
    built = bh.build(network, config)
    assert 0 < built.report.accuracy["y"] < 2**-8  # one rounding to 8 bits
    path = tmp_path / "bf16.plan"
    built.save(path)
    values = np.asarray([[0.5, -2.25, 7], [1, 100, -1]], ml_dtypes.bfloat16)
    with rt.load(path) as engine, engine.create_context() as context:
        result = np.array(context.execute({"x": values.view(np.uint16)})["y"])
    expected = ((values.astype(np.float32) + 1) * 3).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(result, expected.view(np.uint16))
