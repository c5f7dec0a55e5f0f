"""The record of plans that worked and of those that ended the process."""

from __future__ import annotations

import pytest

from runtime_edge.serve.last_good import LastGood


def test_what_worked_is_remembered(tmp_path):
    record = LastGood(str(tmp_path / "state"))
    record.begin("a", "/1")
    record.end("a", "/1", is_good=True)
    record.begin("a", "/2")
    record.end("a", "/2", is_good=False)
    assert LastGood(str(tmp_path / "state")).good("a") == "/1"
    assert record.good("b") == ""


def test_ends_are_counted_per_file_and_forgotten_after_a_load_that_ends(tmp_path):
    for expected in (0, 1, 2):
        record = LastGood(str(tmp_path))
        assert record.num_ends("a", "/1") == expected
        record.begin("a", "/1")
    assert record.num_ends("a", "/other") == 0
    record.end("a", "/1", is_good=False)
    assert record.num_ends("a", "/1") == 0


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"good": 1, "trying": []}', '{"good": {"a": 1}, "trying": {"a": 7}}']
)
def test_a_damaged_record_is_no_record(tmp_path, text):
    (tmp_path / "last_good.json").write_text(text)
    record = LastGood(str(tmp_path))
    assert record.good("a") == ""
    assert record.num_ends("a", "/1") == 0
    record.begin("a", "/1")
    record.end("a", "/1", is_good=True)
    assert record.good("a") == "/1"


def test_without_a_folder_nothing_is_kept():
    record = LastGood("")
    record.begin("a", "/1")
    record.end("a", "/1", is_good=True)
    assert record.good("a") == ""
