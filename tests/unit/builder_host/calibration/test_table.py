"""Calibration tables: literal bytes, real tables, malformed ones."""

from __future__ import annotations

import pytest
from support.cases import DATA

from builder_host.calibration.table import (
    CalibrationTable,
    load_table,
    parse_table,
    table_of_ranges,
)
from builder_host.errors import BuilderError

TABLES = DATA / "onnx/calib_tables"


def test_literal_text():
    table = table_of_ranges("TRT-8601-EntropyCalibration2", {"data": 1.0, "a: b": 127.0, "z": 0.0})
    assert table.text() == "TRT-8601-EntropyCalibration2\ndata: 3c010204\na: b: 3f800000\nz: 0\n"
    assert parse_table(table.text()) == table
    assert table.ranges["data"] == pytest.approx(1.0, rel=1e-7)


def test_what_float16_cannot_hold_has_a_line_of_its_own():
    table = table_of_ranges("H", {"a": 1.0, "b": 100.0}, {"b": 127.0 * 1024})
    assert table.text() == "H\na: 3c010204\nb: 3f499326\nb#largest: 44800000\n"
    assert parse_table(table.text()) == table
    assert parse_table(table.text()).largest == {"b": 130048.0}
    # the name of a tensor when there is none that it could belong to
    assert parse_table("H\nc#largest: 3f800000\n").scales == {"c#largest": 1.0}


@pytest.mark.parametrize(
    ("name", "header", "count", "tensor", "largest"),
    [
        ("calib_yolov4-tiny-int8-416.bin", "TRT-7103-EntropyCalibration2", 76, "000_net", 1.000244),
        ("nvcaffe_mres2.calibration", "1", 58, "res4.5.sum", 1.825647),
        ("yolov2-tiny-calibration.table", "1", 27, "(Unnamed ITensor* 22)", 9.242188),
    ],
)
def test_real_tables_load_and_are_written_back_byte_by_byte(name, header, count, tensor, largest):
    table = load_table(TABLES / name)
    assert (table.header, len(table.scales)) == (header, count)
    assert table.ranges[tensor] == pytest.approx(largest, rel=1e-6)
    assert table.text().encode() == (TABLES / name).read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 must be a header"),
        ("data: 3c010204\n", "the header line is missing"),
        ("H\ndata 3c010204\n", r"t:2: 'data 3c010204' is not 'tensor name: '"),
        ("H\na: 3c010204\nb: 123456789\n", r"t:3: 'b: 123456789' is not"),
        ("H\na: 7f800000\n", r"t:2: scale of 'a' is inf"),
        ("H\na: 7fc00000\n", r"t:2: scale of 'a' is nan"),
        ("H\na: bf800000\n", r"t:2: scale of 'a' is -1.0"),
        ("H\na: 3f800000\na: 3f800000\n", "t:3: tensor 'a' is listed twice"),
    ],
)
def test_malformed_text_names_the_line(text, message):
    with pytest.raises(BuilderError, match=message):
        parse_table(text, "t")


def test_unreadable_files(tmp_path):
    with pytest.raises(BuilderError, match="cannot read the calibration table"):
        load_table(tmp_path / "missing")
    binary = tmp_path / "binary"
    binary.write_bytes(b"H\n\xff\xfe")
    with pytest.raises(BuilderError, match="cannot read the calibration table"):
        load_table(binary)
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(17 << 20)
    with pytest.raises(BuilderError, match="too large"):
        load_table(huge)


@pytest.mark.parametrize("scales", [{"": 1.0}, {" a": 1.0}, {"a\nb": 1.0}, {"a": float("nan")}])
def test_tables_that_could_not_be_written(scales):
    with pytest.raises(BuilderError, match="calibration table"):
        CalibrationTable("H", scales)
