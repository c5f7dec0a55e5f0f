"""V1 `layers` blocks in today's form."""

from __future__ import annotations

from typing import Any

from builder_host.importers.caffe import schema

# Those whose name is not the enum's words in capital letters joined.
_IRREGULAR = {
    "ABSVAL": "AbsVal",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "LRN": "LRN",
    "MVN": "MVN",
    "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}


def type_name(v1_name: str) -> str:
    """Layer type of a V1 enum value, e.g. `INNER_PRODUCT` -> `InnerProduct`."""
    return _IRREGULAR.get(v1_name) or "".join(w.capitalize() for w in v1_name.split("_"))


def upgraded(v1: Any) -> Any:
    """A LayerParameter that says the same as a V1LayerParameter; learning rates are dropped."""
    layer = schema.message_class("LayerParameter")()
    for field, value in v1.ListFields():
        if field.name == "type":
            layer.type = type_name(v1.LayerType.Name(value))
        elif field.name == "param":
            for name in value:
                layer.param.add().name = name
        elif field.name in ("blobs_lr", "weight_decay", "blob_share_mode"):
            continue  # training only
        elif field.message_type is None:
            _copy_scalar(layer, field, value)
        elif field.name in ("include", "exclude", "blobs"):
            getattr(layer, field.name).extend(value)
        else:
            getattr(layer, field.name).CopyFrom(value)
    return layer


def _copy_scalar(layer: Any, field: Any, value: Any) -> None:
    target = getattr(layer, field.name)
    if isinstance(target, str | int | float):
        setattr(layer, field.name, value)
    else:
        target.extend(value)
