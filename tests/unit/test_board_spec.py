"""Board files follow the schema."""

from __future__ import annotations

import json

import pytest

from boards.spec import BoardSpecError, board_names, check_board, load_board
from runtime_edge.cli import main


def test_every_board_file_loads():
    assert "host-cpu" in board_names()
    for name in board_names():
        assert load_board(name).name == name


def test_unknown_board_lists_the_known_ones():
    with pytest.raises(BoardSpecError, match=r"unknown board 'toaster'.*host-cpu"):
        load_board("toaster")


JETPACK = {"name": "jetpack9", "title": "JetPack 9"}
GOOD = {"name": "b", "title": "B", "device_kind": "cpu", "sources": [], "is_probed": True}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"title": 3}, "'title' is 3"),
        ({"name": "c"}, "name is 'c'"),
        ({"device_kind": "tpu"}, "device_kind is 'tpu'"),
        ({"is_probed": False}, "either is_probed"),
        ({"is_probed": False, "fingerprint": {"cpu.num_cores": 2}}, "sources is empty"),
        ({"sources": [1]}, r"sources\[0\] is 1; expected a text"),
        ({"software": [{"name": "x"}]}, r"software\[0\] lacks title"),
        ({"software": ["x"]}, r"software\[0\] is 'x'; expected a table"),
        ({"software": [JETPACK, JETPACK]}, "two software generations are named 'jetpack9'"),
        ({"software": [{**JETPACK, "name": "a@b"}]}, "'@' is reserved"),
        ({"software": [{**JETPACK, "toolkit": "12"}]}, "'12'; expected a version like 11.8"),
        ({"software": [{**JETPACK, "cuda": 1}]}, r"unknown key 'software\[0\].cuda'"),
        (
            {"software": [{**JETPACK, "fingerprint": {"cuda.colour": 1}}]},
            r"software\[0\].fingerprint has the unknown field 'cuda.colour'; known: cpu.arch",
        ),
        (
            {"software": [{**JETPACK, "fingerprint": {"cuda.num_sms": True}}]},
            "'cuda.num_sms' is True; expected a text or a whole number",
        ),
        ({"hardware": {"memory_bytes": 1.5}}, "'hardware.memory_bytes' is 1.5; expected int"),
        ({"hardware": {"memory_gbps": -1.0}}, "is -1.0; expected no less than 0"),
        ({"power_modes": [{"id": 1}]}, r"power_modes\[0\] lacks name"),
        ({"serial": {"baud": 115201}}, "'serial.baud' is 115201; known: 9600, "),
        ({"serial": {"stop_bits": 3}}, "'serial.stop_bits' is 3; expected 1 or 2"),
        ({"serial": {"baud": True}}, "'serial.baud' is True; expected int"),
    ],
)
def test_broken_board_files_are_refused(change, message):
    with pytest.raises(BoardSpecError, match=message):
        check_board({**GOOD, **change}, "b")


def test_a_board_name_means_its_first_software():
    spec = load_board("jetson-agx-orin")
    assert spec.generation == "jetpack6"
    assert spec.fingerprint["cuda.cuda_version"] == "12.6"
    assert spec.fingerprint["cuda.compute_capability"] == "8.7"


def test_software_is_chosen_behind_an_at_sign():
    spec = load_board("jetson-agx-orin@jetpack5")
    assert (spec.name, spec.generation) == ("jetson-agx-orin", "jetpack5")
    assert spec.fingerprint["cuda.cuda_version"] == "11.4"


def test_software_may_change_what_the_board_reports():
    assert load_board("drive-thor").fingerprint["cuda.compute_capability"] == "10.1"
    assert load_board("drive-thor@driveos7.2").fingerprint["cuda.compute_capability"] == "11.0"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("jetson-nano@jetpack6", "has no software 'jetpack6'; known: jetson-nano@jetpack4"),
        ("jetson-nano@", "has no software ''"),
        ("host-cpu@jetpack6", "one software only; leave out '@jetpack6'"),
    ],
)
def test_unknown_software_lists_the_known_ones(name, message):
    with pytest.raises(BoardSpecError, match=message):
        load_board(name)


def test_boards_are_complete():
    """Every board with a GPU says what decides the compiler; the numbers have sources."""
    for name in board_names():
        spec = load_board(name)
        assert spec.is_probed or spec.sources, name
        if spec.device_kind == "cuda":
            assert "cuda.compute_capability" in spec.fingerprint, name
            assert spec.fingerprint["cuda.is_integrated"] in ("0", "1"), name
            for software in spec.software:
                assert "cuda.cuda_version" in software.fingerprint, name
                assert software.toolkit, name


def test_list_command_names_every_board(capsys):
    assert main(["boards", "list"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{name} " in out for name in board_names())


def test_show_command_prints_json(capsys):
    assert main(["boards", "show", "jetson-orin-nx@jetpack5", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["generation"] == "jetpack5"
    assert report["fingerprint"]["cuda.num_sms"] == "8"
    assert report["serial"]["fast_stop_bits"] == 2


def test_show_command_marks_the_chosen_software(capsys):
    assert main(["boards", "show", "jetson-agx-xavier@jetpack4"]) == 0
    assert "  * jetson-agx-xavier@jetpack4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show"], "name a board"),
        (["show", "toaster"], "unknown board 'toaster'"),
        (["list", "t4"], "boards show t4"),
    ],
)
def test_command_errors_are_one_message(capsys, arguments, message):
    assert main(["boards", *arguments]) == 1
    assert message in capsys.readouterr().err
