"""Layers without bottoms that bring data in: each needed top becomes a network input."""

from __future__ import annotations

from typing import Any

from builder_host.importers.caffe.problem import LayerProblem

DATA_TYPES = frozenset(
    {
        "AnnotatedData",
        "Data",
        "DummyData",
        "HDF5Data",
        "ImageData",
        "Input",
        "MemoryData",
        "Python",
        "VideoData",
        "WindowData",
    }
)
# Measures for training: they need labels and nothing reads what they say.
TRAINING_TYPES = frozenset(
    {
        "Accuracy",
        "ContrastiveLoss",
        "DetectionEvaluate",
        "EuclideanLoss",
        "HDF5Output",
        "HingeLoss",
        "InfogainLoss",
        "MultiBoxLoss",
        "MultinomialLogisticLoss",
        "SigmoidCrossEntropyLoss",
        "SmoothL1Loss",
    }
)


def is_source(message: Any) -> bool:
    """Whether a LayerParameter brings data in from outside."""
    if message.bottom:
        return False
    return message.type in DATA_TYPES or message.HasField("input_param")


def stated_shape(message: Any, top: int) -> tuple[int, ...] | None:
    """Shape of one top as the file states it; None when only the data would tell.

    Raises:
        LayerProblem: the number of shapes does not fit the number of tops.
    """
    num_tops = len(message.top)
    if message.HasField("input_param") and message.input_param.shape:
        return _of_list(list(message.input_param.shape), top, num_tops)
    if message.type == "DummyData":
        param = message.dummy_data_param
        if param.shape:
            return _of_list(list(param.shape), top, num_tops)
        return _dummy_legacy(param, top)
    if message.type == "MemoryData":
        param = message.memory_data_param
        if top == 0:
            return param.batch_size, param.channels, param.height, param.width
        return (param.batch_size,)
    return None


def missing_shape_text(message: Any, top: str) -> str:
    """What to do about a data layer whose shapes are not in the file."""
    batch, size, color = _hints(message)
    example = f"{batch}, {color}, {size or 'H'}, {size or 'W'}"
    return (
        f"reads data, so the shape of '{top}' is not in the file; "
        f"state it with shapes={{'{top}': ({example})}} (--shapes {top}:NxCxHxW), "
        "or import the deploy prototxt"
    )


def _hints(message: Any) -> tuple[int, int, int]:
    """Batch size, crop size (0 = unknown) and channels that the layer tells or suggests."""
    batch, size = 1, message.transform_param.crop_size
    for field, value in message.ListFields():
        if field.name in ("data_param", "image_data_param", "hdf5_data_param"):
            batch = value.batch_size or batch
            size = size or getattr(value, "crop_size", 0)
    is_grey = message.HasField("image_data_param") and not message.image_data_param.is_color
    return batch, size, 1 if is_grey else 3


def _of_list(shapes: list[Any], top: int, num_tops: int) -> tuple[int, ...]:
    if len(shapes) not in (1, num_tops):
        raise LayerProblem(f"{len(shapes)} shapes for {num_tops} tops; state one, or one for each")
    return tuple(shapes[top if len(shapes) > 1 else 0].dim)


def _dummy_legacy(param: Any, top: int) -> tuple[int, ...] | None:
    lists = [list(v) for v in (param.num, param.channels, param.height, param.width)]
    if not all(lists):
        return None
    return tuple(values[top] if top < len(values) else values[0] for values in lists)
