"""Board files follow the schema."""

from __future__ import annotations

import pytest

from boards.spec import BoardSpecError, board_names, check_board, load_board


def test_every_board_file_loads():
    assert "host-cpu" in board_names()
    for name in board_names():
        assert load_board(name).name == name


def test_unknown_board_lists_the_known_ones():
    with pytest.raises(BoardSpecError, match=r"unknown board 'toaster'.*host-cpu"):
        load_board("toaster")


GOOD = {"name": "b", "title": "B", "device_kind": "cpu", "sources": [], "is_probed": True}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"title": 3}, "'title' is 3"),
        ({"name": "c"}, "name is 'c'"),
        ({"device_kind": "tpu"}, "device_kind is 'tpu'"),
        ({"is_probed": False}, "either is_probed"),
    ],
)
def test_broken_board_files_are_refused(change, message):
    with pytest.raises(BoardSpecError, match=message):
        check_board({**GOOD, **change}, "b")
