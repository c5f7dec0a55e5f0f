"""Plans survive writing and reading; files are written atomically and mapped without copies."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from support.plans import sample_plan, section_range, tiny_plan

from planformat.container import SectionKind
from planformat.errors import PlanError, PlanFormatError
from planformat.reader import open_plan, read_plan
from planformat.writer import plan_bytes, save_plan


@pytest.mark.parametrize("make", [sample_plan, tiny_plan])
def test_reads_what_was_written(make):
    plan = make()
    assert read_plan(plan_bytes(plan)) == plan


def test_same_plan_same_bytes_whatever_the_order_of_its_mappings():
    plan = sample_plan()
    shuffled = replace(plan, provenance=dict(reversed(list(plan.provenance.items()))))
    assert plan_bytes(shuffled) == plan_bytes(plan)


def test_equal_code_objects_share_a_section():
    data = plan_bytes(sample_plan())
    plan = read_plan(data)
    codes = {bytes(code.data) for variant in plan.variants for code in variant.code_objects}
    num_objects = sum(len(variant.code_objects) for variant in plan.variants)
    assert num_objects == 4
    assert len(codes) == 3
    assert data.count(codes.pop()) == 1


def test_literal_head_of_a_tiny_plan():
    data = plan_bytes(tiny_plan())
    assert data[:16] == b"\x89EPLAN\r\n" + b"\x01\x00\x01\x00" + b"\x80\x00\x00\x00"
    assert data[16:24] == len(data).to_bytes(8, "little")
    assert data[24:40] == bytes(16)
    assert data[40:56] == (128).to_bytes(8, "little") + b"\x01\x00\x00\x00\x40\x00\x00\x00"
    assert data[56:64] == len(data).to_bytes(8, "little")
    assert data[64:96] == bytes(32)
    assert data[128:144] == b"\x01\0\0\0" + bytes(4) + (192).to_bytes(8, "little")
    assert data[192:198] == b"\x0a\x04tiny"


def test_weights_and_code_are_views_of_the_data():
    data = bytearray(plan_bytes(sample_plan()))
    plan = read_plan(data)
    begin, _ = section_range(bytes(data), SectionKind.WEIGHTS)
    data[begin] ^= 0xFF
    assert plan.weights[0] == data[begin]
    assert plan.weights.readonly
    assert begin % 4096 == 0


def test_weights_may_be_any_contiguous_buffer():
    plan = sample_plan()
    words = memoryview(bytes(plan.weights)).cast("I")
    assert plan_bytes(replace(plan, weights=words)) == plan_bytes(plan)
    with pytest.raises(PlanFormatError, match="contiguous"):
        plan_bytes(replace(plan, weights=words[::2]))


def test_large_weights_are_checked_by_threads():
    chunk = 12 << 20
    weights = bytes(3 * chunk + 5)
    plan = replace(sample_plan(), weights=weights, chunk_lengths=(chunk,) * 3 + (5,))
    data = bytearray(plan_bytes(plan))
    begin, _ = section_range(bytes(data), SectionKind.WEIGHTS)
    read_plan(data)
    data[begin + 2 * chunk] = 1
    with pytest.raises(PlanFormatError, match=r"section 'weights', chunk 2, bytes 25,"):
        read_plan(data)


def test_save_and_open(tmp_path: Path):
    path = tmp_path / "a.plan"
    save_plan(sample_plan(), path)
    assert path.read_bytes() == plan_bytes(sample_plan())
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    assert os.listdir(tmp_path) == ["a.plan"]
    with open_plan(path) as opened:
        assert opened.plan == sample_plan()
        assert [entry.name for entry in opened.container.entries][:3] == [
            "manifest",
            "chunks",
            "weights",
        ]
        weights = opened.plan.weights
    with pytest.raises(ValueError, match="released"):
        bytes(weights)


def test_close_refuses_while_weights_are_in_use(tmp_path: Path):
    save_plan(sample_plan(), tmp_path / "a.plan")
    opened = open_plan(tmp_path / "a.plan")
    in_use = memoryview(opened.plan.weights)[8:16]
    with pytest.raises(PlanError, match=r"a\.plan: cannot be closed"):
        opened.close()
    in_use.release()
    opened.close()
    opened.close()


@pytest.mark.parametrize("fails", ["write", "fsync", "replace"])
def test_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch, fails):
    path = tmp_path / "a.plan"
    path.write_bytes(b"old")

    def refuse(*args):
        raise OSError(28, "No space left on device")

    if fails == "write":

        class FullDisk:
            def __enter__(self):
                return self

            def __exit__(self, *exception):
                return None

            write = flush = refuse

        def open_full(descriptor, mode):
            os.close(descriptor)
            return FullDisk()

        monkeypatch.setattr("builtins.open", open_full)
    else:
        monkeypatch.setattr(os, fails, refuse)
    with pytest.raises(PlanError, match=r"a\.plan: cannot be written: .*No space left"):
        save_plan(tiny_plan(), path)
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.plan"]


@pytest.mark.parametrize(("number", "is_error"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_folder_that_cannot_be_flushed(tmp_path: Path, monkeypatch, number, is_error):
    path = tmp_path / "a.plan"
    flush = os.fsync

    def flush_files_only(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", flush_files_only)
    if is_error:
        with pytest.raises(PlanError, match="was written, but its folder"):
            save_plan(tiny_plan(), path)
    else:
        save_plan(tiny_plan(), path)
    assert path.read_bytes() == plan_bytes(tiny_plan())


def test_save_into_a_missing_folder(tmp_path: Path):
    with pytest.raises(PlanError, match="cannot be written"):
        save_plan(tiny_plan(), tmp_path / "none" / "a.plan")


def test_open_names_what_is_wrong_with_the_file(tmp_path: Path):
    with pytest.raises(PlanError, match=r"none\.plan: cannot be opened"):
        open_plan(tmp_path / "none.plan")
    (tmp_path / "empty.plan").write_bytes(b"")
    with pytest.raises(PlanFormatError, match=r"empty\.plan: the file is empty"):
        open_plan(tmp_path / "empty.plan")
    with pytest.raises(PlanError, match="cannot be opened"):
        open_plan(tmp_path)
    (tmp_path / "text.plan").write_bytes(b"x" * 500)
    with pytest.raises(PlanFormatError, match=r"text\.plan: header, byte 0: magic"):
        open_plan(tmp_path / "text.plan")
