"""Files given as --input: arrays, and everything that may be in their place."""

from __future__ import annotations

import os
import random
import struct

import numpy as np
import pytest

from runtime_edge.cli import CommandError
from runtime_edge.cli._arrays import input_files, read_array

X = np.arange(12, dtype=np.float32).reshape(3, 4)
BROKEN = "not a .npy file of numbers"


def npy(header: str, data: bytes = X.tobytes(), version: bytes = b"\x01\x00") -> bytes:
    text = header.encode("latin-1") + b"\n"
    size = struct.pack("<H" if version[0] == 1 else "<I", len(text))
    return b"\x93NUMPY" + version + size + text + data


def header(shape: str, descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"


@pytest.mark.parametrize(
    "array",
    [X, np.asfortranarray(X), X.astype(">i2"), np.float16(3), np.zeros((0, 4), np.uint8)],
    ids=["rows", "columns", "big endian", "scalar", "empty"],
)
def test_arrays_come_back(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    found = read_array("x", str(tmp_path / "x.npy"))
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(found, array)
    assert not isinstance(found, np.memmap)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with b''"),
        (b"\x93NUM", "begins with"),
        (b"hello, world", "begins with b'hello,'"),
        (b"\x80\x04\x95pickle", r"begins with b'.x80.x04"),
        (b"PK\x03\x04" + bytes(30), "an archive of several arrays"),
        (b"\x93NUMPY\x01", BROKEN),
        (npy(header("(3, 4)"))[:40], BROKEN),
        (npy(header("(3, 4)"), X.tobytes()[:-1]), BROKEN),
        (npy(header("(3, 4)"), b""), BROKEN),
        (npy(header("(3, 4)", "'|O'"), b"\x80\x04K\x01."), BROKEN),
        (npy(header(f"({1 << 40},)")), BROKEN),
        (npy(header(f"({1 << 62}, {1 << 62})")), BROKEN),
        (npy(header("(-3, -4)")), BROKEN),
        (npy(header("(3, 'x')")), BROKEN),
        (npy(header("[3, 4]")), BROKEN),
        (npy(header("(3, 4)", "'nonsense'")), BROKEN),
        (npy("(" * 5000), BROKEN),
        (npy("{'descr': '''"), BROKEN),
        (npy(header("(3, 4)") + " " * 20000), BROKEN),
        (npy(header("(3, 4)"), version=b"\x07\x00"), BROKEN),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", BROKEN),
    ],
)
def test_anything_else_is_one_line(tmp_path, content, message):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(CommandError, match=message) as caught:
        read_array("x", str(tmp_path / "x.npy"))
    assert str(caught.value).startswith(f"--input x={tmp_path}/x.npy: ")
    assert "\n" not in str(caught.value)


def test_no_shape_takes_memory_that_the_file_does_not_have(tmp_path, monkeypatch):
    path = tmp_path / "x.npy"
    path.write_bytes(npy(header("(1000000000, 1000)", "'<f8'")))
    monkeypatch.setattr(np, "fromfile", lambda *_, **__: pytest.fail("it is read"))
    with pytest.raises(CommandError, match=BROKEN):
        read_array("x", str(path))


def test_too_little_memory_is_said(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", X)

    def load(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "load", load)
    with pytest.raises(CommandError, match="there is no memory for its 176 bytes"):
        read_array("x", str(tmp_path / "x.npy"))


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(CommandError, match="it is no regular file"):
            read_array("x", str(path))
    with pytest.raises(FileNotFoundError):
        read_array("x", str(tmp_path / "none.npy"))


@pytest.mark.filterwarnings("ignore::UserWarning")  # headers that NumPy takes for Python 2's
def test_damaged_files_give_an_array_or_one_error(tmp_path):
    path, good = tmp_path / "x.npy", npy(header("(3, 4)"))
    dice = random.Random(7)
    for _ in range(500):
        data = bytearray(good)
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(6, min(len(data), 100))
            match dice.randrange(3):
                case 0:
                    data[at] = dice.randrange(256)
                case 1:
                    del data[at : at + dice.randint(1, 20)]
                case 2:
                    data[at:at] = bytes(dice.choices(b"()[]{},:'0123456789LO<>|fiuSV\n ", k=3))
        path.write_bytes(data)
        try:
            found = read_array("x", str(path))
        except CommandError:
            continue
        assert found.nbytes <= len(data)


def test_names_and_paths():
    assert list(input_files(["x=a.npy", "y=b=c.npy"])) == [("x", "a.npy"), ("y", "b=c.npy")]
    for text in ("x", "x=", "=a.npy", ""):
        with pytest.raises(CommandError, match=r"expected NAME=FILE\.npy"):
            list(input_files([text]))
    with pytest.raises(CommandError, match="'x' is given twice"):
        list(input_files(["x=a.npy", "x=b.npy"]))
