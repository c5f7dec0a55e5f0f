"""Samples: pictures with their description, arrays, iterators, and how they become batches."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from builder_host.calibration.batches import batched, open_data
from builder_host.calibration.preprocessing import Preprocessing, load_preprocessing
from builder_host.errors import BuilderError
from builder_host.network.network import Network


def network_of(shape, name="data", second=None):
    network = Network()
    network.add_input(name, shape)
    if second is not None:
        network.add_input("other", second)
    return network


@pytest.fixture
def picture(tmp_path):
    """A 6x4 picture (width x height) whose pixels tell where they are."""
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    path = tmp_path / "p.png"
    Image.fromarray(pixels).save(path)
    return path, pixels


def test_channels_order_scale_and_layout(picture):
    path, pixels = picture
    rule = Preprocessing(channels="bgr", scale=0.5, mean=(1.0, 2.0, 3.0), std=(2.0, 4.0, 8.0))
    got = rule.read(path, (3, 4, 6))
    for channel, (mean, std) in enumerate(((1.0, 2.0), (2.0, 4.0), (3.0, 8.0))):
        expected = (pixels[:, :, 2 - channel] * 0.5 - mean) / std
        np.testing.assert_allclose(got[channel], expected, rtol=1e-6)
    nhwc = Preprocessing(layout="nhwc").read(path, (4, 6, 3))
    np.testing.assert_array_equal(nhwc, pixels.astype(np.float32))
    assert Preprocessing(channels="gray").read(path, (1, 4, 6)).shape == (1, 4, 6)


def test_shorter_side_and_centre_crop(picture):
    path, pixels = picture
    got = Preprocessing(size=(4, 4), resize="shorter", shorter=4).read(path, (3, 4, 4))
    np.testing.assert_array_equal(got, pixels[:, 1:5].transpose(2, 0, 1))
    with pytest.raises(BuilderError, match=r"a crop of 4x4 does not fit .* 2x3; raise 'shorter'"):
        Preprocessing(size=(4, 4), resize="shorter", shorter=2).read(path, (3, 4, 4))


def test_pictures_that_cannot_be_used(tmp_path, picture):
    path, _ = picture
    text = tmp_path / "t.png"
    text.write_text("no picture")
    with pytest.raises(BuilderError, match="not a readable picture"):
        Preprocessing().read(text, (3, 4, 6))
    with pytest.raises(BuilderError, match=r"gives \(3, 4, 6\).*the network takes \(1, 4, 6\)"):
        Preprocessing().read(path, (1, 4, 6))
    bomb = tmp_path / "bomb.png"
    Image.new("1", (20000, 20000)).save(bomb)
    with pytest.raises(BuilderError, match=r"20000x20000 pixels are over the limit|not a readable"):
        Preprocessing().read(bomb, (3, 4, 6))


def test_descriptions_from_files(tmp_path):
    toml = tmp_path / "p.toml"
    toml.write_text('size = [4, 6]\nchannels = "bgr"\nmean = [1, 2, 3.5]\nstd = 2\n')
    expected = Preprocessing((4, 6), channels="bgr", mean=(1.0, 2.0, 3.5), std=(2.0,))
    assert load_preprocessing(toml) == expected
    as_json = tmp_path / "p.json"
    as_json.write_text(
        json.dumps({"size": [4, 6], "channels": "bgr", "mean": [1, 2, 3.5], "std": 2})
    )
    assert load_preprocessing(as_json) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sise = 3", "unknown key 'sise'; known: size, resize"),
        ("size = 3", "'size' is 3"),
        ("size = [0, 3]", "an extent is 0"),
        ("size = [true, 3]", "'size' is"),
        ('channels = "cmyk"', "channels is 'cmyk'; expected one of rgb, bgr, gray"),
        ("mean = [1, 2]", "mean has 2 values, rgb has 3 channels"),
        ("std = 0", "std not 0"),
        ("scale = inf", "must be finite"),
        ("scale = 'x'", "'scale' is 'x'"),
        ("size = ", "cannot read the preprocessing description"),
    ],
)
def test_bad_descriptions(tmp_path, text, message):
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(BuilderError, match=message) as error:
        load_preprocessing(path)
    assert str(path) in str(error.value)


def test_folder_in_order_with_limit(tmp_path):
    for name, value in (("b.png", 2), ("a/z.jpg", 1), ("c.png", 3), ("notes.txt", 0)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if name.endswith("txt"):
            (tmp_path / name).write_text("x")
        else:
            Image.fromarray(np.full((4, 6, 3), value, np.uint8)).save(tmp_path / name)
    samples = open_data(tmp_path, network_of((1, 3, 4, 6)), limit=2)
    assert len(samples) == 2
    assert [sample["data"].shape for sample in samples] == [(1, 3, 4, 6)] * 2
    assert [float(sample["data"].mean()) for sample in samples] == [1.0, 2.0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(BuilderError, match="no picture in it"):
        open_data(tmp_path / "empty", network_of((1, 3, 4, 6)))


def test_arrays_from_files(tmp_path):
    values = np.arange(5 * 2, dtype=np.float32).reshape(5, 2)
    np.savez(tmp_path / "one.npz", anything=values)
    np.save(tmp_path / "one.npy", values)
    for name in ("one.npz", "one.npy"):
        samples = open_data(tmp_path / name, network_of((1, 2)), limit=3)
        np.testing.assert_array_equal(np.concatenate([s["data"] for s in samples]), values[:3])
    np.savez(tmp_path / "two.npz", data=values, other=np.zeros((5, 3)))
    two = network_of((1, 2), second=(1, 3))
    assert [set(s) for s in open_data(tmp_path / "two.npz", two)] == [{"data", "other"}] * 5
    for file, network, message in (
        ("one.npy", two, "one array for 2 inputs"),
        ("one.npz", two, "no array for input data, other; it has anything"),
        ("one.npz", network_of((1, 3)), r"has shape \(5, 2\); expected \[samples, 3\]"),
    ):
        with pytest.raises(BuilderError, match=message):
            open_data(tmp_path / file, network)
    np.savez(tmp_path / "uneven.npz", data=values, other=np.zeros((4, 3)))
    with pytest.raises(BuilderError, match=r"\[4, 5\] samples"):
        open_data(tmp_path / "uneven.npz", two)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(BuilderError, match="cannot read arrays"):
        open_data(tmp_path / "objects.npy", network_of((1, 2)))


@pytest.mark.parametrize("cut", [(5,), (1, 4), (2, 2, 1), (1, 1, 1, 1, 1)])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_batches_hold_every_sample_once(cut, size):
    values = np.arange(5 * 2, dtype=np.float64).reshape(5, 2)
    edges = np.cumsum([0, *cut])
    parts = [values[a:b] for a, b in pairwise(edges)]
    network = network_of((size, 2))
    found = list(batched(iter(parts), network.inputs))
    assert all(arrays["data"].shape == (size, 2) for arrays, _ in found)
    assert all(arrays["data"].dtype == np.float32 for arrays, _ in found)
    kept = np.concatenate([arrays["data"][:count] for arrays, count in found])
    np.testing.assert_array_equal(kept, values)
    last, count = found[-1]
    np.testing.assert_array_equal(
        last["data"][count:], np.repeat(values[-1:], size - count, axis=0)
    )


def test_samples_of_the_wrong_kind():
    network = network_of((2, 3), second=(2, 3))
    for sample, message in (
        (np.zeros((1, 3)), "must be a mapping by input name"),
        ({"data": np.zeros((1, 3))}, "lacks input 'other'; it has data"),
        (
            {"data": np.zeros((1, 4)), "other": np.zeros((1, 3))},
            r"shape \(1, 4\); expected \[n, 3\]",
        ),
        ({"data": np.zeros((2, 3)), "other": np.zeros((1, 3))}, "different leading dimensions"),
    ):
        with pytest.raises(BuilderError, match=message):
            list(batched([sample], network.inputs))
