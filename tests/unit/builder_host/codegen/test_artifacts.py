"""The artifact store: whole folders, first writer wins, least recently used goes first."""

from __future__ import annotations

import os
from pathlib import Path

from builder_host.codegen.artifacts import ArtifactStore


def test_stored_files_are_found_again(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    assert store.get("ab12") is None
    folder = store.put("ab12", {"kernel.c": "int x;", "kernel.o": b"\x7fELF"})
    assert ArtifactStore(tmp_path).get("ab12") == folder
    assert (folder / "kernel.c").read_text() == "int x;"
    assert (folder / "kernel.o").read_bytes() == b"\x7fELF"


def test_the_first_writer_wins(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    store.put("ab12", {"a": "first"})
    folder = store.put("ab12", {"a": "second"})
    assert (folder / "a").read_text() == "first"
    assert [p.name for p in folder.parent.iterdir()] == ["ab12"]


def test_failures_are_kept_but_never_reused(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    store.put("ab12", {"log.txt": "one"}, is_failed=True)
    folder = store.put("ab12", {"log.txt": "two"}, is_failed=True)
    assert store.get("ab12") is None
    assert (folder / "log.txt").read_text() == "two"


def test_clean_removes_the_least_recently_used(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    for age, key in enumerate(["aa1", "bb2", "cc3"]):
        folder = store.put(key, {"data": b"x" * 100})
        os.utime(folder, (1000 + age, 1000 + age))
    store.get("aa1")  # used now
    report = store.clean(250)
    assert (report.num_removed, report.removed_bytes, report.kept_bytes) == (1, 100, 200)
    assert store.get("bb2") is None
    assert store.get("aa1") is not None
    assert store.size_bytes() == 200
