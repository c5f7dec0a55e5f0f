"""Options, targets, names that are not here: what a program is told."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from support.cuda_toolkits import need_toolkit
from support.documentation import ROOT
from support.tensorrt_networks import compiled, constant, floats, inputs_of, network_of

from builder_host import tensorrt as trt
from builder_host.errors import TimingCacheError
from builder_host.expressions import Binary, Input
from builder_host.plugins import PluginRegistry
from builder_host.tensorrt import parsers
from planformat.reader import read_plan
from runtime_edge import tensorrt as runtime
from scripts import make_tensorrt_page

EXPLICIT = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)


class Collecting(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
        self.messages = []

    def log(self, severity, msg):
        self.messages.append((severity, msg))

    def texts(self, severity):
        return [text for kind, text in self.messages if kind == severity]


def small(logger, target="host-cpu"):
    """A builder, a network of one convolution and an activation, a config without measuring."""
    builder = trt.Builder(logger, target=target)
    net = builder.create_network(EXPLICIT)
    x = net.add_input("x", trt.float32, (1, 8, 6, 6))
    conv = net.add_convolution_nd(x, 8, trt.DimsHW(3, 3), floats(8, 8, 3, 3))
    relu = net.add_activation(conv.get_output(0), trt.ActivationType.RELU)
    relu.get_output(0).name = "y"
    net.mark_output(relu.get_output(0))
    config = builder.create_builder_config()
    config.builder_optimization_level = 0
    return builder, net, config, conv


# --- the table of names ----------------------------------------------------------------------


def test_migration_page_is_what_the_generator_writes():
    written = make_tensorrt_page.PAGE.read_text(encoding="utf-8")
    assert written == make_tensorrt_page.page(written), "run scripts/make_tensorrt_page.py"


def test_refused_names_are_refused_and_the_others_are_there():
    api = make_tensorrt_page.tomllib.loads(
        (ROOT / "scripts" / "tensorrt_api.toml").read_text(encoding="utf-8")
    )
    assert sum(len(row["members"].split()) for row in api.values()) > 250
    for row in api.values():
        owner = getattr(trt, row["class"])
        for name, advice in getattr(owner, "refused", {}).items():
            assert name not in make_tensorrt_page.members(owner), f"{row['class']}.{name}"
            assert advice


def test_a_refused_name_says_what_to_use(monkeypatch):
    builder, net = network_of(monkeypatch)
    with pytest.raises(AttributeError, match=r"add_dynamic_quantize is not in edgeplan: "):
        net.add_dynamic_quantize  # noqa: B018 - it raises
    with pytest.raises(AttributeError, match="the timing cache is text"):
        builder.create_builder_config().algorithm_selector = object()
    with pytest.raises(AttributeError, match="object has no attribute 'add_nonsense'"):
        net.add_nonsense  # noqa: B018 - it raises
    assert not hasattr(net, "add_moe")
    with pytest.raises(AttributeError, match=r"use Refitter\(engine, logger\) of `builder_host"):
        runtime.Refitter  # noqa: B018 - it raises
    with pytest.raises(AttributeError, match="goes to `add_plugin_v2`"):
        trt.IPluginV2DynamicExt  # noqa: B018 - it raises


# --- options ---------------------------------------------------------------------------------


def test_what_changes_nothing_is_said():
    logger = Collecting()
    builder, net, config, conv = small(logger)
    config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    config.flags |= 1 << int(trt.BuilderFlag.DIRECT_IO)
    config.max_aux_streams = 3
    config.set_memory_pool_limit(trt.MemoryPoolType.DLA_MANAGED_SRAM, 1 << 20)
    config.set_device_type(conv, trt.DeviceType.DLA)
    assert builder.build_serialized_network(net, config) is not None
    told = logger.texts(trt.Logger.WARNING)
    assert len(told) == 5
    assert any(text.startswith("SPARSE_WEIGHTS changes nothing: there are no") for text in told)
    assert any("max_aux_streams = 3 changes nothing" in text for text in told)


def test_a_strict_cache_without_the_kernels_fails():
    logger = Collecting()
    builder, net, config, _ = small(logger)
    config.builder_optimization_level = 3
    config.set_flag(trt.BuilderFlag.ERROR_ON_TIMING_CACHE_MISS)
    assert builder.build_serialized_network(net, config) is None
    assert "cache" in logger.texts(trt.Logger.ERROR)[0]


def test_timing_caches_are_combined_and_begin_empty():
    builder, net, config, _ = small(Collecting())
    cache, other = (config.create_timing_cache(b"") for _ in range(2))
    config.set_timing_cache(cache)
    assert builder.build_serialized_network(net, config) is not None
    assert other.combine(cache)
    assert other.serialize() == cache.serialize() != b""
    assert other.combine(config.create_timing_cache(b""))
    assert other.serialize() == cache.serialize()
    with pytest.raises(TimingCacheError, match="not a timing cache of edgeplan"):
        other.combine(config.create_timing_cache(b"\x80ptrt"))


def test_a_progress_monitor_sees_phases_and_can_end_the_build():
    class Monitor(trt.IProgressMonitor):
        def __init__(self, last=None):
            trt.IProgressMonitor.__init__(self)
            self.open, self.phases, self.last = [], [], last

        def phase_start(self, phase_name, parent_phase, num_steps):
            assert num_steps >= 0
            self.open.append(phase_name)
            self.phases.append(phase_name)

        def step_complete(self, phase_name, step):
            assert self.open == [phase_name]
            return phase_name != self.last

        def phase_finish(self, phase_name):
            self.open.remove(phase_name)

    logger = Collecting()
    builder, net, config, _ = small(logger)
    config.progress_monitor = monitor = Monitor()
    assert builder.build_serialized_network(net, config) is not None
    assert monitor.open == []
    assert monitor.phases == ["emit", "done"]  # nothing is timed
    config.progress_monitor = Monitor(last="emit")
    assert builder.build_serialized_network(net, config) is None
    assert "ended the build in 'emit'" in logger.texts(trt.Logger.ERROR)[-1]


def test_profiles_out_of_order_are_refused():
    logger = Collecting()
    builder, net, config, _ = small(logger)
    profile = builder.create_optimization_profile()
    profile.set_shape("x", (4, 8, 6, 6), (1, 8, 6, 6), (8, 8, 6, 6))
    assert not profile
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(net, config) is None
    assert "not ordered" in logger.texts(trt.Logger.ERROR)[0]


# --- targets ---------------------------------------------------------------------------------


def test_what_platforms_have():
    logger = trt.Logger()
    assert not trt.Builder(logger, target="host-cpu").platform_has_fast_fp16
    assert trt.Builder(logger, target="jetson-agx-orin").platform_has_fast_fp16
    assert trt.Builder(logger, target="jetson-agx-orin").platform_has_tf32
    assert trt.Builder(logger, target="jetson-nano").platform_has_fast_fp16
    assert not trt.Builder(logger, target="jetson-nano").platform_has_tf32


@pytest.mark.slow
def test_a_board_that_is_not_here_gets_a_float16_plan():
    """The default configuration would time kernels; those of a board come from the cost model."""
    need_toolkit()
    logger = Collecting()
    builder, net, config, conv = small(logger, target="jetson-agx-orin")
    config.builder_optimization_level = 3
    config.set_flag(trt.BuilderFlag.FP16)
    conv.precision = trt.float32
    plan = builder.build_serialized_network(net, config)
    assert plan is not None, logger.texts(trt.Logger.ERROR)
    assert "is not here" in logger.texts(trt.Logger.WARNING)[0]
    assert read_plan(plan).variants[0].fingerprint.fields["cuda.compute_capability"] == "8.7"


def test_a_layer_in_float16_on_a_cpu_stays_in_float32():
    logger = Collecting()
    builder, net, config, conv = small(logger)
    config.set_flag(trt.BuilderFlag.FP16)
    conv.precision = trt.float16
    assert conv.precision_is_set
    assert builder.build_serialized_network(net, config) is not None
    told = logger.texts(trt.Logger.WARNING)
    assert any("layers stay in float32" in text for text in told)
    assert f"'{conv.name}' precision = HALF changes nothing" in "".join(told)


def test_int8_of_quantised_weights_multiplies_integers():
    """Q/DQ by the API: the inspector shows a layer that reads 8 bits."""
    builder = trt.Builder(trt.Logger(), target="host-cpu")
    net = builder.create_network(EXPLICIT)
    x = floats(1, 16, 8, 8)
    [data] = inputs_of(net, x=x)
    scale = constant(net, np.asarray(0.05, np.float32))
    coarse = net.add_quantize(data, scale)
    fine = net.add_dequantize(coarse.get_output(0), scale)
    kernel = constant(net, np.random.default_rng(1).integers(-127, 127, (16, 16, 3, 3), np.int8))
    weights = net.add_dequantize(kernel, constant(net, np.full(16, 0.01, np.float32)))
    weights.axis = 0
    conv = net.add_convolution_nd(fine.get_output(0), 16, (3, 3))
    conv.set_input(1, weights.get_output(0))
    conv.get_output(0).name = "y"
    net.mark_output(conv.get_output(0))
    config = builder.create_builder_config()
    config.builder_optimization_level = 0
    config.set_flag(trt.BuilderFlag.INT8)
    engine = builder.build_engine(net, config)
    info = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    [layer] = [row for row in json.loads(info)["Layers"] if row["kind"] == "convolution"]
    assert "i8" in json.dumps(layer) or "u8" in json.dumps(layer)


# --- parsers ---------------------------------------------------------------------------------


def test_a_damaged_model_is_an_error_of_the_parser(tmp_path):
    logger = Collecting()
    net = trt.Builder(logger, target="host-cpu").create_network(EXPLICIT)
    parser = trt.OnnxParser(net, logger)
    assert not parser.parse(b"garbage")
    assert "are no ONNX model" in parser.get_error(0).desc()
    assert not parser.parse_from_file(str(tmp_path / "none.onnx"))
    assert "the file cannot be read" in parser.get_error(0).desc()
    assert parser.num_errors == 1
    assert len(logger.texts(trt.Logger.ERROR)) == 2


def test_a_model_with_an_open_batch_is_supported_and_takes_the_shape_that_is_set():
    logger = Collecting()
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    infos = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 3])
        for name in "xy"
    ]
    graph = onnx.helper.make_graph([node], "open", infos[:1], infos[1:])
    opset = onnx.helper.make_opsetid("", 13)
    model = onnx.helper.make_model(graph, opset_imports=[opset]).SerializeToString()
    net = trt.Builder(logger, target="host-cpu").create_network(EXPLICIT)
    parser = trt.OnnxParser(net, logger)
    assert parser.supports_model(model) == (True, [])
    assert parser.parse(model)
    assert tuple(net.get_input(0).shape) == (-1, 3)
    assert tuple(net.get_output(0).shape) == (1, 3)
    net.get_input(0).shape = [5, 3]
    assert tuple(net.get_input(0).shape) == (5, 3)
    assert tuple(net.get_output(0).shape) == (5, 3)
    assert net.emit(None)[0].outputs[0].shape == (5, 3)


def test_a_model_in_memory_takes_only_its_external_data_from_the_path(tmp_path):
    """The file may be an older state of the model that the program has changed since."""
    infos = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [256]) for name in "xy"
    ]
    weights = onnx.numpy_helper.from_array(floats(256), "w")
    opset = onnx.helper.make_opsetid("", 13)

    def saved(op_type):
        node = onnx.helper.make_node(op_type, ["x", "w"], ["y"])
        graph = onnx.helper.make_graph([node], "own", infos[:1], infos[1:], [weights])
        model = onnx.helper.make_model(graph, opset_imports=[opset])
        onnx.save(
            model, tmp_path / "m.onnx", save_as_external_data=True, location=f"{op_type}.data"
        )
        return (tmp_path / "m.onnx").read_bytes()

    model = saved("Mul")
    saved("Add")
    net = trt.Builder(trt.Logger(), target="host-cpu").create_network(EXPLICIT)
    parser = trt.OnnxParser(net, Collecting())
    assert not parser.supports_model(model)[0]
    assert "lies in the external file 'Mul.data'" in parser.get_error(0).desc()
    assert parser.supports_model(model, str(tmp_path / "m.onnx"))[0]
    assert parser.parse(model, str(tmp_path / "m.onnx"))
    [layer] = net.emit(None)[0].layers
    assert "mul" in str(layer.params)


def test_parsers_ask_for_plugins(monkeypatch):
    @dataclass(frozen=True)
    class Doubled(trt.Plugin):
        name = "Doubled"

        def output_types(self, inputs):
            return inputs

        def expression(self, num_inputs):
            return Binary("add", Input(0), Input(0))

    registry = PluginRegistry()
    monkeypatch.setattr(parsers, "PLUGINS", registry)
    infos = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in "xy"]
    node = onnx.helper.make_node("Doubled", ["x"], ["y"], domain="com.example")
    graph = onnx.helper.make_graph([node], "own", infos[:1], infos[1:])
    opsets = [onnx.helper.make_opsetid("", 13), onnx.helper.make_opsetid("com.example", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets).SerializeToString()
    logger = Collecting()
    builder = trt.Builder(logger, target="host-cpu")
    parser = trt.OnnxParser(builder.create_network(EXPLICIT), logger)
    assert parser.supports_model(model)[0] is False
    assert "Doubled" in parser.get_error(0).desc()
    registry.onnx("com.example", "Doubled")(lambda node: Doubled())
    net = builder.create_network(EXPLICIT)
    assert trt.OnnxParser(net, logger).parse(model)
    assert tuple(net.get_output(0).shape) == (2,)


def test_uff_inputs_of_two_orders_are_refused():
    parser = trt.UffParser()
    assert parser.register_input("a", (1, 2, 3), trt.UffInputOrder.NCHW)
    assert not parser.register_input("b", (1, 2, 3), trt.UffInputOrder.NHWC)
    assert "'b' has the order NHWC, those before it NCHW" in parser.get_error(0).desc()


def test_the_output_type_of_a_computing_layer_is_that_of_its_binding():
    logger = Collecting()
    builder, net, config, conv = small(logger)
    relu = net.get_layer(1)
    relu.set_output_type(0, trt.float16)
    assert relu.get_output(0).dtype is trt.float16
    conv.get_output(0).name = "inner"
    conv.set_output_type(0, trt.float16)
    conv.precision = trt.float16
    assert conv.get_output(0).dtype is trt.float32
    x = floats(1, 8, 6, 6)
    half = compiled(builder, net, x=x)["y"]
    assert half.dtype == np.float16
    relu.set_output_type(0, trt.float32)
    single = compiled(builder, net, x=x)["y"]
    assert single.dtype == np.float32
    assert single.max() > 1
    assert np.array_equal(half, single.astype(np.float16))
    told = logger.texts(trt.Logger.WARNING)
    assert (
        f"'{conv.name}' set_output_type(0, HALF) changes nothing: inside the network the build's "
        "precision decides: mark the tensor as an output, or use add_cast"
    ) in told
    assert f"'{conv.name}' precision = HALF changes nothing: this CPU" in "".join(told)
    relu.set_output_type(0, trt.int8)
    assert relu.get_output(0).dtype is trt.float32
    assert builder.build_serialized_network(net, config) is not None
    text = logger.texts(trt.Logger.WARNING)[-1]
    assert "set_output_type(0, INT8) changes nothing: a binding of f32 cannot" in text


def test_a_converted_output_keeps_its_name_where_its_layer_has_it():
    builder, net, config, _ = small(Collecting())
    relu = net.get_layer(1)
    relu.name = "y"
    relu.set_output_type(0, trt.float16)
    plan = read_plan(builder.build_serialized_network(net, config))
    assert [(b.name, b.dtype.text) for b in plan.bindings] == [("x", "f32"), ("y", "f16")]
