"""Samples: pictures with their description, arrays, iterators, and how they become batches."""

from __future__ import annotations

import json
import sys
import warnings
import zipfile
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from builder_host.accuracy.labels import labels_of
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


def test_stretch_and_centre_crop(picture):
    path, pixels = picture
    rule = Preprocessing(size=(2, 4), stretched=(4, 6))
    np.testing.assert_array_equal(rule.read(path, (3, 2, 4)), pixels[1:3, 1:5].transpose(2, 0, 1))
    wide = Preprocessing(size=(2, 4), stretched=(8, 12), interpolation="nearest")
    expected = np.repeat(np.repeat(pixels, 2, 0), 2, 1)[3:5, 4:8]
    np.testing.assert_array_equal(wide.read(path, (3, 2, 4)), expected.transpose(2, 0, 1))
    with pytest.raises(BuilderError, match=r"does not fit .* 1x6; raise 'stretched'"):
        Preprocessing(size=(2, 4), stretched=(1, 6)).read(path, (3, 2, 4))


BLOCK = np.array([[10, 60, 110], [160, 210, 250]], np.uint8)  # 8x8 pixels of each


def blocks(mode="L"):
    return Image.fromarray(np.kron(BLOCK, np.ones((8, 8), np.uint8))).convert(mode)


def centres(path, channels="rgb", turned=False):
    shape = (1 if channels == "gray" else 3, *((24, 16) if turned else (16, 24)))
    return Preprocessing(channels=channels).read(path, shape)[:, 4::8, 4::8]


MODES = {
    "p.png": "L RGB P RGBA LA 1",
    "p.jpg": "L RGB CMYK",
    "p.JPEG": "L CMYK",
    "p.webp": "L RGB P RGBA LA",
    "p.bmp": "L RGB P 1",
    "p.tiff": "L RGB CMYK P RGBA LA 1",
}


@pytest.mark.parametrize(
    ("name", "mode"), [(name, mode) for name, modes in MODES.items() for mode in modes.split()]
)
def test_file_formats_and_colour_modes(tmp_path, name, mode):
    """Grey blocks stay grey blocks: JPEG and WebP of quality 95 move them by a level or two."""
    path = tmp_path / name
    blocks(mode).save(path, quality=95)
    expected = np.asarray(blocks(mode).convert("L"), np.float32)[4::8, 4::8]
    got = centres(path)
    if mode == "1":  # dithered: compare all of it
        shape = (1, 16, 24)
        np.testing.assert_array_equal(
            Preprocessing(channels="gray").read(path, shape)[0], np.asarray(blocks("1")) * 255.0
        )
        return
    assert np.abs(got - expected).max() <= 3
    assert np.abs(centres(path, "gray")[0] - expected).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    """A viewer shows the same picture whichever way the camera was held."""
    stored = {
        1: BLOCK, 2: BLOCK[:, ::-1], 3: BLOCK[::-1, ::-1], 4: BLOCK[::-1],
        5: BLOCK.T, 6: np.rot90(BLOCK), 7: np.rot90(BLOCK, 2).T, 8: np.rot90(BLOCK, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "p.png"
    Image.fromarray(np.kron(stored, np.ones((8, 8), np.uint8))).save(path, exif=exif)
    np.testing.assert_array_equal(centres(path, "gray")[0], BLOCK)


def test_sixteen_bits_and_what_has_no_scale(tmp_path):
    deep = np.kron(BLOCK.astype(np.uint16) * 257, np.ones((8, 8), np.uint16))
    for name in ("p.png", "p.tiff"):
        Image.fromarray(deep).save(tmp_path / name)
        np.testing.assert_array_equal(centres(tmp_path / name, "gray")[0], BLOCK)
    Image.fromarray(deep.astype(np.float32)).save(tmp_path / "f.tiff")
    with pytest.raises(BuilderError, match="pixels are floats"):
        centres(tmp_path / "f.tiff")
    Image.fromarray(deep.astype(np.int32) - 30000).save(tmp_path / "i.tiff")
    with pytest.raises(BuilderError, match=r"values from -\d+ to \d+; pictures have 8 or 16 bits"):
        centres(tmp_path / "i.tiff")


def test_a_palette_with_transparent_entries(tmp_path):
    path = tmp_path / "p.png"
    blocks("P").save(path, transparency=bytes([0, 128, 255]))
    assert np.abs(centres(path) - BLOCK).max() <= 3


@pytest.mark.parametrize("name", ["p.png", "p.jpg", "p.webp", "p.bmp", "p.tiff"])
def test_damaged_files_are_an_error_and_nothing_else(tmp_path, name):
    """Cut at every length, and with bytes changed: a picture or a BuilderError."""
    blocks("RGB").save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    rng = np.random.default_rng(0)
    damaged = [data[:end] for end in range(0, len(data), max(1, len(data) // 60))]
    for _ in range(120):
        changed = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            changed[at] = rng.integers(0, 256)
        damaged.append(bytes(changed))
    refused = []
    for content in damaged:
        (tmp_path / name).write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's, about damaged tags
                Preprocessing(size=(16, 24)).read(tmp_path / name, (3, 16, 24))
        except BuilderError as error:
            refused.append(str(error))
    assert len(refused) > 10
    assert all(str(tmp_path / name) in text for text in refused)


def test_without_pillow_the_message_says_what_to_install(picture, monkeypatch):
    path, _ = picture
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(BuilderError, match="pip install pillow"):
        Preprocessing().read(path, (3, 4, 6))


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
    places = (("b.png", 2), ("a/z.jpg", 1), ("c.png", 3), (".b.png", 4), ("notes.txt", 0))
    for name, value in places:
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


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "packed.npz"])
def test_damaged_arrays_are_an_error_and_nothing_else(tmp_path, name):
    """Cut at every length, and with bytes changed: arrays or a BuilderError."""
    save = {"x.npy": np.save, "x.npz": np.savez, "packed.npz": np.savez_compressed}[name]
    save(tmp_path / name, np.arange(10).reshape(5, 2))
    data = (tmp_path / name).read_bytes()
    rng = np.random.default_rng(0)
    damaged = [data[:end] for end in range(0, len(data), max(1, len(data) // 60))]
    for _ in range(200):
        changed = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            changed[at] = rng.integers(0, 256)
        damaged.append(bytes(changed))
    refused = []
    for content in damaged:
        (tmp_path / name).write_bytes(content)
        for read in (
            lambda: open_data(tmp_path / name, network_of((1, 2))),
            lambda: labels_of([1] * 10, tmp_path / name),
        ):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # numpy's, about damaged headers
                    read()
            except BuilderError as error:
                refused.append(str(error))
    assert len(refused) > 100
    assert all(str(tmp_path / name) in text for text in refused)


def test_an_archive_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("data", "text")
    with pytest.raises(BuilderError, match="'data' in it is no array"):
        open_data(tmp_path / "x.npz", network_of((1, 2)))
    with pytest.raises(BuilderError, match="expected one integer each"):
        labels_of([1], tmp_path / "x.npz")


@pytest.mark.parametrize("count", [1 << 50, 1 << 70])
def test_arrays_that_claim_more_than_their_file_holds(tmp_path, count):
    path = tmp_path / "x.npy"
    with path.open("wb") as stream:
        header = {"descr": "<i8", "fortran_order": False, "shape": (count,)}
        np.lib.format.write_array_header_1_0(stream, header)
    with pytest.raises(BuilderError, match="cannot read arrays"):
        open_data(path, network_of((1, 2)))
    with pytest.raises(BuilderError, match="cannot read the labels"):
        labels_of([1], path)


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
