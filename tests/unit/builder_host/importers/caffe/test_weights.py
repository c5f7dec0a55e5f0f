"""caffemodel and binaryproto: every form of values and shapes, and damage."""

import struct

import numpy as np
import pytest

from builder_host.errors import ImportModelError
from builder_host.importers.caffe import schema
from builder_host.importers.caffe.weights import read_binaryproto, read_caffemodel


def model_bytes(add_blob, *, v1=False):
    net = schema.message_class("NetParameter")(name="n")
    layer = (net.layers if v1 else net.layer).add(name="conv")
    add_blob(layer.blobs.add())
    return net.SerializeToString()


def read(tmp_path, data):
    path = tmp_path / "w.caffemodel"
    path.write_bytes(data)
    return read_caffemodel(path).blobs["conv"]


VALUES = np.array([[1.0, -2.5, 3.0], [4.0, 0.5, -6.0]])


def float_blob(blob):
    blob.shape.dim.extend([2, 3])
    blob.data.extend(VALUES.ravel())


def double_blob(blob):
    blob.shape.dim.extend([2, 3])
    blob.double_data.extend(VALUES.ravel())


def half_blob(blob):
    blob.shape.dim.extend([2, 3])
    blob.raw_data_type = 2
    blob.raw_data = VALUES.astype("<f2").tobytes()


def legacy_blob(blob):
    blob.num, blob.channels, blob.height, blob.width = 1, 1, 2, 3
    blob.data.extend(VALUES.ravel())


@pytest.mark.parametrize("v1", [False, True])
@pytest.mark.parametrize(
    ("add", "dtype", "shape"),
    [
        (float_blob, "float32", (2, 3)),
        (double_blob, "float64", (2, 3)),
        (half_blob, "float16", (2, 3)),
        (legacy_blob, "float32", (1, 1, 2, 3)),
    ],
)
def test_forms_of_blobs(tmp_path, add, dtype, shape, v1):
    (blob,) = read(tmp_path, model_bytes(add, v1=v1))
    assert (blob.dtype.name, blob.shape) == (dtype, shape)
    np.testing.assert_array_equal(blob.reshape(2, 3), VALUES)


def test_values_that_are_not_packed(tmp_path):
    # field 5, wire type 5 (32 bits), one key per value, as early writers did.
    blob = b"".join(b"\x2d" + struct.pack("<f", v) for v in (1.0, 2.0))
    layer = b"\x0a\x04conv" + b"\x3a" + bytes([len(blob)]) + blob
    (found,) = read(tmp_path, b"\xa2\x06" + bytes([len(layer)]) + layer)
    assert found.tolist() == [1.0, 2.0]


def test_training_state_in_the_file_is_passed_over(tmp_path):
    def add(blob):
        float_blob(blob)
        blob.diff.extend([9.0] * 6)

    (blob,) = read(tmp_path, model_bytes(add))
    np.testing.assert_array_equal(blob, VALUES)


def test_truncated_at_every_byte_is_an_error_or_has_all_values(tmp_path):
    data = model_bytes(float_blob)
    for length in range(len(data)):
        with pytest.raises(ImportModelError):
            read(tmp_path, data[:length])


def test_damage_is_named_by_byte_and_size(tmp_path):
    data = model_bytes(float_blob)
    with pytest.raises(ImportModelError, match=rf"byte 3: .* the file has {len(data) - 4} bytes"):
        read(tmp_path, data[:-4])


def test_every_single_byte_corrupted_never_crashes(tmp_path):
    data = model_bytes(float_blob)
    for at in range(len(data)):
        broken = bytearray(data)
        broken[at] ^= 0xFF
        path = tmp_path / "w.caffemodel"
        path.write_bytes(broken)
        try:
            blobs = read_caffemodel(path).blobs
        except ImportModelError:
            continue
        assert sum(b.nbytes for found in blobs.values() for b in found) <= len(data)


@pytest.mark.parametrize("dims", [[2, 4], [-1, -6], [1 << 40, 1 << 40], []])
def test_shape_that_does_not_match_the_values(tmp_path, dims):
    def add(blob):
        blob.shape.dim.extend(dims)
        blob.data.extend(VALUES.ravel())

    with pytest.raises(ImportModelError, match=r"layer 'conv' blob 0 has shape .* but 6 values"):
        read(tmp_path, model_bytes(add))


def test_unknown_raw_type(tmp_path):
    def add(blob):
        blob.raw_data_type = 3
        blob.raw_data = b"\0" * 8

    with pytest.raises(ImportModelError, match="raw data of type 3"):
        read(tmp_path, model_bytes(add))


@pytest.mark.parametrize("data", [b"", b"name: 'text'\n", b"\x89HDF\r\n\x1a\n"])
def test_files_that_are_no_caffemodel(tmp_path, data):
    with pytest.raises(ImportModelError):
        read(tmp_path, data)


def test_mean_file(tmp_path):
    blob = schema.message_class("BlobProto")(num=1, channels=2, height=1, width=3)
    blob.data.extend(VALUES.ravel())
    path = tmp_path / "mean.binaryproto"
    path.write_bytes(blob.SerializeToString())
    mean = read_binaryproto(path)
    assert (mean.dtype, mean.shape) == (np.float32, (1, 2, 1, 3))
    np.testing.assert_array_equal(mean.ravel(), VALUES.ravel())
    path.write_bytes(blob.SerializeToString()[:-1])
    with pytest.raises(ImportModelError, match="byte"):
        read_binaryproto(path)
