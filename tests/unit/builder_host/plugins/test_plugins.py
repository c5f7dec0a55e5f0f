"""Plugins from class to plan: layer, formats, tactics, provenance; what is said of bad ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from support import cpu_kernels, cuda_kernels

import builder_host as bh
import runtime_edge as rt
from builder_host.errors import NetworkError, PluginError
from builder_host.expressions import Binary, Const, Input
from builder_host.kernels.cuda_plugin.family import FAMILY as CUDA
from builder_host.kernels.family import Problem
from builder_host.kernels.plugin.family import FAMILY as CPU
from builder_host.layouts import Layout, dense_layout
from builder_host.network.evaluate import evaluate_network
from builder_host.network.layers.plugin import plugin_params
from builder_host.passes import narrow_float
from builder_host.plugins import GridLaunch, Launch, Plugin, PluginKernel, TensorType
from builder_host.plugins.macros import macro_lines
from builder_host.plugins.plugin import KernelRequest, identity
from planformat.datatypes import DataType, TensorFormat

RNG = np.random.default_rng(7)

SOURCE = """
EP_EXPORT void powers(void *const *args, int64_t begin, int64_t end, void *scratch) {
  (void)scratch;
  const float *x = args[0], *w = args[1];
  float *square = args[2], *total = args[3];
  for (int64_t n = begin; n < end; ++n) {
    float sum = 0.0f;
    for (int64_t i = 0; i < X0_DIM_1; ++i) {
      const float value = x[n * X0_STRIDE_0 + i * X0_STRIDE_1] * w[i] * ATTR_gain;
      square[n * Y0_STRIDE_0 + i * Y0_STRIDE_1] = value * value;
      sum += value;
    }
    total[n * Y1_STRIDE_0] = sum;
  }
}
"""


@dataclass(frozen=True)
class Powers(Plugin):
    """Two outputs, a constant input, strides, two tactics."""

    name = "Powers"
    version = "3"
    takes_strides = True
    gain: float = 2.0

    def output_types(self, inputs):
        x, w = inputs
        if w.shape != x.shape[1:]:
            raise ValueError(f"weights {w} do not fit {x}")
        return [x, TensorType(x.shape[:1], x.dtype)]

    def reference(self, inputs):
        value = inputs[0] * inputs[1] * self.gain
        return [value**2, value.sum(axis=1)]

    def kernels(self, request):
        if request.device_kind != "cpu":
            return []
        rows = request.inputs[0].shape[0]
        return [
            PluginKernel("rows", SOURCE, (Launch("powers", rows),)),
            PluginKernel("one", SOURCE + "// once\n", (Launch("powers", rows),), estimate_us=9.0),
        ]


@dataclass(frozen=True)
class Affine(Plugin):
    """An expression."""

    name = "Affine"
    slope: float = 3.0

    def output_types(self, inputs):
        return [inputs[0]]

    def expression(self, num_inputs):
        return Binary("add", Binary("mul", Input(0), Const(self.slope)), Const(1.0))


def config(**options):
    return bh.BuilderConfig(measure="none", num_threads=1, **options)


def run(built, tmp_path, inputs):
    built.save(tmp_path / "p.plan")
    with rt.load(tmp_path / "p.plan") as engine, engine.create_context() as context:
        return {name: np.array(values) for name, values in context.execute(inputs).items()}


def powers_network(gain=2.0):
    network = bh.Network("powers")
    x = network.add_input("x", (6, 8))
    weights = RNG.standard_normal(5).astype(np.float32)
    part = network.add_slice(x, (0, 2), (6, 5)).output  # strided in the plan
    layer = network.add_plugin(Powers(gain), [part, weights], "powers", output_names=("sq", "sum"))
    for tensor in layer.outputs:
        network.mark_output(tensor)
    return network, weights


def test_a_plan_runs_a_plugin_and_says_so(tmp_path):
    network, weights = powers_network()
    built = bh.build(network, config())
    assert built.plan.provenance["plugin 1 Powers/3"] == '{"gain": 2.0}'
    assert {row.kind for row in built.report.operations} == {"plugin"}  # the slice is a view
    x = RNG.standard_normal((6, 8)).astype(np.float32)
    results = run(built, tmp_path, {"x": x})
    value = x[:, 2:7].astype(np.float64) * weights * 2.0
    np.testing.assert_allclose(results["sq"], value**2, rtol=1e-6)
    np.testing.assert_allclose(results["sum"], value.sum(1), rtol=1e-5, atol=1e-6)


def test_profiles_of_several_batches_share_a_plugins_weights(tmp_path):
    def network(batch):
        made = bh.Network("profiles")
        x = made.add_input("x", (batch, 5))
        weights = np.arange(1, 6, dtype=np.float32)
        layer = made.add_plugin(Powers(), [x, weights], "powers")
        made.mark_output(layer.outputs[1], "sum")
        return made

    built = bh.build({"one": network(1), "four": network(4)}, config())
    assert [key for key in built.plan.provenance if key.startswith("plugin")] == [
        "plugin 1 Powers/3"
    ]
    built.save(tmp_path / "p.plan")
    with rt.load(tmp_path / "p.plan") as engine:
        for name, batch in (("one", 1), ("four", 4)):
            x = RNG.standard_normal((batch, 5)).astype(np.float32)
            with engine.create_context(profile=name) as context:
                found = np.array(context.execute({"x": x})["sum"])
            np.testing.assert_allclose(found, (x * np.arange(1, 6) * 2).sum(1), rtol=1e-5)


def test_the_fastest_kernel_is_taken_and_remembered(tmp_path):
    cache = tmp_path / "t.cache"
    network, _ = powers_network()
    options = {"timing_cache": cache, "num_threads": 1}
    first = bh.build(network, bh.BuilderConfig(**options))
    assert first.report.tuning.num_candidates == 2
    assert first.report.tuning.num_measured == 2
    again = bh.build(network, bh.BuilderConfig(is_strict_cache=True, **options))
    assert again.to_bytes() == first.to_bytes()
    other, _ = powers_network(gain=1.5)  # another attribute is another problem
    with pytest.raises(bh.BuilderError, match="lacks 2 of 2"):
        bh.build(other, bh.BuilderConfig(is_strict_cache=True, **options))


def test_other_source_is_another_candidate(tmp_path):
    problem = problem_for(Powers())
    before = [t.text for t in CPU.tactics(problem, cpu_kernels.AVX2)]

    class Edited(Powers):
        def kernels(self, request):
            return [
                PluginKernel(k.name, k.source + "\n", k.launches) for k in super().kernels(request)
            ]

    after = [t.text for t in CPU.tactics(problem_for(Edited()), cpu_kernels.AVX2)]
    assert not set(before) & set(after)


def test_an_expression_fuses_into_the_convolution(tmp_path):
    network = bh.Network()
    x = network.add_input("x", (1, 16, 8, 8))
    weights = RNG.standard_normal((16, 16, 1, 1)).astype(np.float32)
    y = network.add_convolution(x, 16, 1, weights).output
    network.mark_output(network.add_plugin(Affine(), [y], "affine").output)
    built = bh.build(network, config())
    assert "plugin" not in {row.kind for row in built.report.operations}
    assert sum(row.kind == "pointwise" for row in built.report.operations) == 0
    assert built.plan.provenance["plugin 1 Affine/1"] == '{"slope": 3.0}'
    values = RNG.standard_normal((1, 16, 8, 8)).astype(np.float32)
    (result,) = run(built, tmp_path, {"x": values}).values()
    expected = np.einsum("kc,nchw->nkhw", weights[:, :, 0, 0].astype(np.float64), values) * 3 + 1
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


def test_an_expression_has_a_reference():
    network = bh.Network()
    x = network.add_input("x", (4,))
    network.mark_output(network.add_plugin(Affine(2.0), [x], "y").output)
    np.testing.assert_array_equal(evaluate_network(network, {"x": np.arange(4)})["y"], [1, 3, 5, 7])


# --- formats and types ---------------------------------------------------------------------


class Blocked(Plugin):
    """Doubles the elements of a blocked tensor, whatever they are."""

    name = "Blocked"
    formats = (TensorFormat.NCHW16C, TensorFormat.NCHW8C, TensorFormat.NCHW4C)

    def output_types(self, inputs):
        return [inputs[0]]

    def reference(self, inputs):
        return [inputs[0] * 2]

    def kernels(self, request):
        source = """
        EP_EXPORT void twice(void *const *args, int64_t begin, int64_t end, void *scratch) {
          (void)scratch;
          const int64_t count = X0_STRIDE_1;
          for (int64_t i = begin * count; i < end * count; ++i)
            ((float *)args[1])[i] = ((const float *)args[0])[i] * 2.0f;
        }"""
        blocks = request.inputs[0].num_channel_blocks * request.inputs[0].shape[0]
        return [PluginKernel("blocks", source, (Launch("twice", blocks),))]


def test_blocked_formats_need_no_reformat_between_convolutions(tmp_path):
    network = bh.Network()
    x = network.add_input("x", (1, 32, 12, 12))
    weights = RNG.standard_normal((2, 32, 32, 3, 3)).astype(np.float32) / 20
    y = network.add_convolution(x, 32, 3, weights[0], pads=1).output
    y = network.add_plugin(Blocked(), [y], "twice").output
    network.mark_output(network.add_convolution(y, 32, 3, weights[1], pads=1).output, "y")
    built = bh.build(network, config())  # compared with the float64 reference inside
    assert built.report.accuracy["y"] < 1e-5
    kinds = [row.kind for row in built.report.operations]
    assert "reformat" not in kinds[1:-1]


def test_float16_builds_cast_around_a_plugin_that_knows_float32():
    network = bh.Network()
    x = network.add_input("x", (6, 5))
    weights = np.ones(5, np.float32)
    layer = network.add_plugin(Powers(), [x, weights], "powers", output_names=("sq", "sum"))
    after = network.add_activation(layer.outputs[0], "relu").output
    for tensor in (after, layer.outputs[1]):
        network.mark_output(tensor)
    narrow_float.run(network)
    assert [t.dtype for t in layer.inputs] == [DataType.FLOAT32] * 2
    assert [t.dtype for t in layer.outputs] == [DataType.FLOAT32] * 2
    assert network.layers[-2].inputs[0].dtype is DataType.FLOAT16  # relu reads the narrowed copy
    assert [t.dtype for t in network.outputs] == [DataType.FLOAT32] * 2


def test_float16_plugins_are_narrowed():
    class Narrow(Affine):
        dtypes = (DataType.FLOAT32, DataType.FLOAT16)

        def expression(self, num_inputs):
            return None

    network = bh.Network()
    x = network.add_input("x", (6, 5))
    layer = network.add_plugin(Narrow(), [x], "y")
    network.mark_output(layer.output)
    narrow_float.run(network)
    assert (layer.inputs[0].dtype, layer.output.dtype) == (DataType.FLOAT16, DataType.FLOAT16)


def problem_for(plugin, inputs=((6, 5), (5,)), *, layouts=None, dtype=DataType.FLOAT32):
    types = [TensorType(shape, dtype) for shape in inputs]
    held = tuple(layouts or (dense_layout(t) for t in types))
    outputs = tuple(dense_layout(t) for t in plugin.output_types(types))
    constant = (False,) + (True,) * (len(types) - 1)
    return Problem("plugin", plugin_params(plugin), held, constant, outputs, None, 1)


def test_what_a_plugin_supports_by_default():
    class Dense(Powers):
        takes_strides = False

    strided = Layout(TensorFormat.LINEAR, (6, 5), DataType.FLOAT32, (8, 1))
    layouts = (strided, dense_layout(TensorType((5,))))
    assert CPU.applies(problem_for(Powers(), layouts=layouts), cpu_kernels.AVX2)
    assert not CPU.applies(problem_for(Dense(), layouts=layouts), cpu_kernels.AVX2)
    half = problem_for(Powers(), dtype=DataType.FLOAT16)
    assert not CPU.applies(half, cpu_kernels.AVX2)
    assert not CUDA.applies(problem_for(Powers()), cuda_kernels.make_target("87"))


def test_macros():
    request = KernelRequest(
        "cpu",
        cpu_kernels.AVX2,
        (Layout(TensorFormat.NCHW8C, (1, 12, 2, 3), DataType.FLOAT32, (96, 48, 24, 8)),),
        (dense_layout(TensorType((4,), DataType.INT32)),),
        (False,),
    )

    class Configured(Affine):
        def attributes(self):
            return {"count": -2, "ratio": 0.1, "is_on": True, "mode": 'a"b', "sizes": (1, 2.5)}

    lines = macro_lines(Configured(), request)
    for line in (
        "#define X0_TYPE float",
        "#define X0_BLOCK 8",
        "#define X0_DIM_1 12",
        "#define X0_STRIDE_1 48",
        "#define X0_IS_CONSTANT 0",
        "#define Y0_TYPE int32_t",
        "#define Y0_ELEMS 4",
        "#define ATTR_count (-2)",
        "#define ATTR_ratio 0x1.99999a0000000p-4f",
        "#define ATTR_is_on 1",
        r'#define ATTR_mode "a\"b"',
        "#define ATTR_sizes {1, 2.5f}".replace("2.5f", "0x1.4000000000000p+1f"),
        "#define ATTR_sizes_COUNT 2",
    ):
        assert line in lines, (line, lines)


# --- bad plugins ---------------------------------------------------------------------------


def changed(**members):
    return type("Changed", (Powers,), members)()


def kernels_of(*kernels):
    return lambda _self, _request: list(kernels)


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        (changed(kernels=kernels_of(PluginKernel("a b", SOURCE, (Launch("powers", 1),)))), "names"),
        (changed(kernels=kernels_of(PluginKernel("a", SOURCE, (Launch("absent", 1),)))), "absent"),
        (changed(kernels=kernels_of(PluginKernel("a", SOURCE, ()))), "launches of Launch"),
        (
            changed(
                kernels=kernels_of(
                    PluginKernel("a", SOURCE, (GridLaunch("powers", (1, 1, 1), (1, 1, 1)),))
                )
            ),
            "launches of Launch",
        ),
        (changed(kernels=lambda _self, _request: 1 / 0), "ZeroDivisionError"),
    ],
)
def test_bad_kernels_are_reported(plugin, words):
    with pytest.raises(PluginError, match=words):
        CPU.applies(problem_for(plugin), cpu_kernels.AVX2)


def test_kernels_that_differ_when_asked_again():
    count = iter(range(100))
    plugin = changed(
        kernels=lambda _self, _request: [
            PluginKernel("a", SOURCE + f"// {next(count)}\n", (Launch("powers", 6),))
        ]
    )
    problem = problem_for(plugin)
    (tactic,) = CPU.tactics(problem, cpu_kernels.AVX2)
    with pytest.raises(PluginError, match="equal requests"):
        CPU.generate(problem, tactic, cpu_kernels.AVX2)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"name": "two words"}, "identifier"),
        ({"version": ""}, "version"),
        ({"attributes": lambda _self: {"a b": 1}}, "no identifier"),
        ({"attributes": lambda _self: {"a": object()}}, "must be a number"),
        ({"attributes": lambda _self: {"a": float("nan")}}, "nan"),
        ({"attributes": lambda _self: {"a": tuple(range(2000))}}, "limit is 3000"),
    ],
)
def test_bad_names_and_attributes(members, words):
    with pytest.raises(PluginError, match=words):
        identity(changed(**members))


def test_equal_attributes_are_equal_whatever_their_order():
    one = changed(attributes=lambda _self: {"a": 1, "b": 2})
    other = changed(attributes=lambda _self: {"b": 2, "a": 1})
    assert plugin_params(one) == plugin_params(other)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({}, r"weights 4:f32 do not fit 6x5:f32"),
        ({"output_types": lambda _self, _inputs: 1 / 0}, "ZeroDivisionError"),
        ({"output_types": lambda _self, _inputs: []}, "no outputs"),
        ({"output_types": lambda _self, _inputs: [(6, 5)]}, "must be TensorTypes"),
    ],
)
def test_inputs_that_do_not_fit(members, words):
    network = bh.Network()
    x = network.add_input("x", (6, 5))
    with pytest.raises(NetworkError, match=words):
        network.add_plugin(changed(**members), [x, np.zeros(4, np.float32)], "layer7")


def test_without_reference_the_check_must_be_waived(tmp_path):
    network = bh.Network()
    x = network.add_input("x", (6, 5))
    plugin = changed(reference=lambda _self, _inputs: None)
    weights = np.ones(5, np.float32)
    layer = network.add_plugin(plugin, [x, weights], "powers")
    network.mark_output(layer.outputs[1])
    with pytest.raises(bh.BuilderError, match=r"no reference.*--no-check"):
        bh.build(network, config())
    built = bh.build(network, config(is_checked=False))
    values = RNG.standard_normal((6, 5)).astype(np.float32)
    (result,) = run(built, tmp_path, {"x": values}).values()
    np.testing.assert_allclose(result, values.sum(1) * 2, rtol=1e-5, atol=1e-5)


def test_a_source_that_does_not_compile_shows_the_compilers_words():
    plugin = changed(
        kernels=kernels_of(
            PluginKernel("typo", SOURCE.replace("sum +=", "summ +="), (Launch("powers", 6),))
        )
    )
    network = bh.Network()
    x = network.add_input("x", (6, 5))
    network.mark_output(network.add_plugin(plugin, [x, np.ones(5, np.float32)]).outputs[0])
    with pytest.raises(bh.BuilderError, match=r"plugin Powers, kernel typo:\d+.*summ"):
        bh.build(network, config())


def test_no_kernel_for_the_device_names_the_layer():
    network = bh.Network()
    x = network.add_input("x", (6, 5))
    layer = network.add_plugin(changed(kernels=kernels_of()), [x, np.ones(5, np.float32)], "seven")
    network.mark_output(layer.outputs[0])
    with pytest.raises(bh.BuilderError, match=r"'seven'.*plugin Powers"):
        bh.build(network, config())


def test_a_wrong_kernel_is_caught_by_the_reference():
    plugin = changed(
        kernels=kernels_of(
            PluginKernel("off", SOURCE.replace("value * value", "value"), (Launch("powers", 6),))
        )
    )
    network = bh.Network()
    x = network.add_input("x", (6, 5))
    network.mark_output(network.add_plugin(plugin, [x, np.ones(5, np.float32)]).outputs[0])
    with pytest.raises(bh.BuilderError, match="differs from the float64 reference"):
        bh.build(network, config())
