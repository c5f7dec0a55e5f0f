"""Folders of plans for boards without a network: written here, carried, deployed there.

bundle.json        format, version, and per plan its name, file and SHA-256
plans/NAME.plan    the plans
wheels/            packages for the board, when a wheelhouse was given
README.txt         what to type on the board
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from boards.errors import StoreError
from boards.store.reader import check_name
from planformat.reader import open_plan

FORMAT, VERSION = "edgeplan-board-bundle", 1
INDEX = "bundle.json"
_MAX_INDEX_BYTES = 1 << 20
_MAX_PLANS = 256


def write_bundle(folder: Path, plans: Mapping[str, Path], wheels: Path | None = None) -> None:
    """Write a bundle into a new folder.

    Args:
        folder: to make.
        plans: file of each plan by the name that it shall have on the board.
        wheels: folder of packages to take along.

    Raises:
        StoreError: the folder exists, or a name is not allowed.
        PlanError: a file is no sound plan.
    """
    for name, path in plans.items():
        check_name(name)
        open_plan(path).close()
    if folder.exists():
        raise StoreError(f"{folder}: exists already; choose another folder or remove it")
    (folder / "plans").mkdir(parents=True)
    rows = []
    for name, path in plans.items():
        data = path.read_bytes()
        (folder / "plans" / f"{name}.plan").write_bytes(data)
        rows.append(
            {
                "name": name,
                "file": f"plans/{name}.plan",
                "sha256": hashlib.sha256(data).hexdigest(),
                "bytes": len(data),
            }
        )
    if wheels is not None:
        shutil.copytree(wheels, folder / "wheels")
    index = {"format": FORMAT, "version": VERSION, "plans": rows}
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    (folder / "README.txt").write_text(_readme(has_wheels=wheels is not None), encoding="utf-8")


def read_bundle(folder: Path) -> dict[str, Path]:
    """Files of the plans in a bundle by name, each compared with its hash.

    Raises:
        StoreError: no bundle, another version, or a file that differs.
    """
    path = folder / INDEX
    try:
        with open(path, "rb") as file:
            index = json.loads(file.read(_MAX_INDEX_BYTES))
        if index["format"] != FORMAT or index["version"] != VERSION:
            raise ValueError(f"is not '{FORMAT}' version {VERSION}")
        rows = [(str(row["name"]), str(row["sha256"])) for row in index["plans"][:_MAX_PLANS]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(f"{path}: {error}; write one with 'edgeplan bundle'") from error
    plans = {}
    for name, sha256 in rows:
        # the place follows from the name, so that an index cannot point elsewhere
        file_path = folder / "plans" / f"{check_name(name)}.plan"
        try:
            with open(file_path, "rb") as file:
                actual = hashlib.sha256(file.read()).hexdigest()
        except OSError as error:
            raise StoreError(f"{file_path}: {error}; copy the bundle again") from error
        if actual != sha256:
            raise StoreError(
                f"{file_path}: SHA-256 is {actual}, {INDEX} says {sha256}; copy the bundle again"
            )
        plans[name] = file_path
    return plans


def _readme(*, has_wheels: bool) -> str:
    lines = ["On the board, in this folder:", ""]
    if has_wheels:
        lines.append("    python3 -m pip install --no-index --find-links wheels edgeplan")
    lines += ["    edgeplan deploy . --to store:///var/lib/edgeplan --activate", ""]
    return "\n".join(lines)
