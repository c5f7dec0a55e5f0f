"""Messages as bytes on the wire, and layers of older formats."""

import pytest

from builder_host.importers.caffe import schema
from builder_host.importers.caffe.upgrade import type_name, upgraded


def test_field_numbers_of_a_layer_on_the_wire():
    layer = schema.message_class("LayerParameter")(name="n", type="T", bottom=["b"], top=["t"])
    layer.relu_param.negative_slope = 0.5
    # 1 name, 2 type, 3 bottom, 4 top; 123 relu_param (key 0xda 0x07) with float field 1.
    expected = b"\x0a\x01n\x12\x01T\x1a\x01b\x22\x01t\xda\x07\x05\x0d\x00\x00\x00\x3f"
    assert layer.SerializeToString() == expected


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (35, "AbsVal"),
        (14, "InnerProduct"),
        (18, "ReLU"),
        (21, "SoftmaxWithLoss"),
        (39, "Deconvolution"),
        (27, "SigmoidCrossEntropyLoss"),
        (15, "LRN"),
        (9, "HDF5Data"),
    ],
)
def test_v1_types_have_todays_names(number, name):
    v1 = schema.message_class("V1LayerParameter")(type=number)
    assert type_name(v1.LayerType.Name(number)) == name


def test_v1_layer_keeps_everything_but_learning_rates():
    v1 = schema.message_class("V1LayerParameter")(
        name="conv", type=4, bottom=["a"], top=["b"], blobs_lr=[1, 2], param=["w", "c"]
    )
    v1.convolution_param.num_output = 3
    v1.include.add().phase = 1
    layer = upgraded(v1)
    assert layer.type == "Convolution"
    assert (list(layer.bottom), list(layer.top)) == (["a"], ["b"])
    assert layer.convolution_param.num_output == 3
    assert [p.name for p in layer.param] == ["w", "c"]
    assert layer.include[0].phase == 1
