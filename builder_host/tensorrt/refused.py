"""Names of TensorRT's building API that are not here, each with what to use instead.

See `runtime_edge.tensorrt.refused`.
"""

from __future__ import annotations

from collections.abc import Mapping

_NO_DLA = "there is no DLA; everything runs on the GPU or the CPU"
_NO_DEBUG = "use `edgeplan compare`: it looks at every tensor"
_ALL_REFIT = "every weight may be refitted: set BuilderFlag.REFIT"
_COMPILED = "scales are compiled into the code: calibrate and build again"
_LANGUAGE_MODELS = "networks of language models are out of scope; build it of products and softmax"
_PLUGIN = "a plugin of `builder_host.plugins` goes to `add_plugin_v2`, its creator to `PLUGINS`"

TENSOR: Mapping[str, str] = {
    "allowed_formats": "bindings are LINEAR; the builder chooses formats between layers",
    "broadcast_across_batch": "constants are broadcast; inputs have a row per item",
}
NETWORK: Mapping[str, str] = {
    "add_all_reduce": "a plan runs on one device",
    "add_attention": _LANGUAGE_MODELS,
    "add_dist_collective": "a plan runs on one device",
    "add_dynamic_quantize": "scales are fixed when the plan is built: use add_quantize",
    "add_kv_cache_update": _LANGUAGE_MODELS,
    "add_moe": _LANGUAGE_MODELS,
    "add_plugin": _PLUGIN,
    "add_plugin_ext": _PLUGIN,
    "add_plugin_v3": _PLUGIN,
    "add_rotary_embedding": _LANGUAGE_MODELS,
    "are_weights_marked_refittable": _ALL_REFIT,
    "convolution_output_dimensions_formula": "set `padding_mode` of the layers",
    "deconvolution_output_dimensions_formula": "set `padding_mode` of the layers",
    "is_debug_tensor": _NO_DEBUG,
    "mark_debug": _NO_DEBUG,
    "mark_unfused_tensors_as_debug_tensors": _NO_DEBUG,
    "mark_weights_refittable": _ALL_REFIT,
    "pooling_output_dimensions_formula": "set `padding_mode` of the layers",
    "set_weights_name": "Refitter.set_weights takes the layer's name and the role",
    "unmark_debug": _NO_DEBUG,
    "unmark_unfused_tensors_as_debug_tensors": _NO_DEBUG,
    "unmark_weights_refittable": _ALL_REFIT,
}
BUILDER: Mapping[str, str] = {
    "allow_gpu_fallback": _NO_DLA,
    "build_engine_with_config": "use `build_engine` or `build_serialized_network`",
    "build_serialized_network_to_stream": "use `build_serialized_network` and write the bytes",
    "default_device_type": _NO_DLA,
    "get_plugin_registry": _PLUGIN,
    "max_DLA_batch_size": _NO_DLA,
}
REFITTER: Mapping[str, str] = {
    "get_dynamic_range": _COMPILED,
    "get_tensors_with_dynamic_range": _COMPILED,
    "set_dynamic_range": _COMPILED,
}
CONFIG: Mapping[str, str] = {
    "algorithm_selector": "the timing cache is text: edit it, or build with the strict cache",
    "create_build_route": "there are no build routes; the timing cache decides",
    "get_quantization_flag": "calibration sees the model as imported",
    "set_build_route": "there are no build routes; the timing cache decides",
    "set_quantization_flag": "calibration sees the model as imported",
    "clear_quantization_flag": "calibration sees the model as imported",
    "quantization_flags": "calibration sees the model as imported",
    "plugins_to_serialize": "plugins are compiled into the plan",
    "remote_auto_tuning_config": "use `edgeplan build --measure tcp://board:7417`",
}
CACHE: Mapping[str, str] = {
    "query": "`serialize` gives text: a line per kernel",
    "queryKeys": "`serialize` gives text: a line per kernel",
    "update": "edit the text that `serialize` gives",
}
PROFILE: Mapping[str, str] = {
    "extra_memory_target": "memory of a profile is planned when the plan is built",
    "get_shape_input": "shapes depend on no values; give the shapes themselves to `set_shape`",
    "set_shape_input": "shapes depend on no values; give the shapes themselves to `set_shape`",
}
PARSER: Mapping[str, str] = {
    "get_subgraph_nodes": "`supports_model` says what is wrong with the whole model",
    "get_used_vc_plugin_libraries": "plugins are compiled into the plan",
    "is_subgraph_supported": "`supports_model` says what is wrong with the whole model",
    "load_initializer": "give the model with its weights",
    "load_initializers": "give the model with its weights",
    "load_model_proto": "use `parse`",
    "num_subgraphs": "`supports_model` says what is wrong with the whole model",
    "parse_model_proto": "use `parse`",
    "parse_with_weight_descriptors": "use `parse`",
    "plugin_factory": _PLUGIN,
    "plugin_factory_ext": _PLUGIN,
    "plugin_factory_v2": _PLUGIN,
    "plugin_namespace": _PLUGIN,
    "supports_operator": "docs/support-matrix.md lists operators; `supports_model` takes a model",
}
MODULE: Mapping[str, str] = {
    "IAlgorithmSelector": "the timing cache is text: edit it, or build with the strict cache",
    "IPluginCreator": _PLUGIN,
    "IPluginV2": _PLUGIN,
    "IPluginV2DynamicExt": _PLUGIN,
    "IPluginV2Ext": _PLUGIN,
    "IPluginV3": _PLUGIN,
    "PluginField": _PLUGIN,
    "PluginFieldCollection": _PLUGIN,
    "get_builder_plugin_registry": _PLUGIN,
}
