"""Plans of every released format version are read for ever; see scripts/make_golden.py."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from support.plans import GOLDEN_KEY, sample_plan

from planformat import signing
from planformat.reader import open_plan
from planformat.version import VERSION_MAJOR, VERSION_MINOR
from planformat.writer import plan_bytes

FOLDER = Path(__file__).parent

GOLDEN_SHA256 = {
    "sample_v1.0.plan": "61097f2321db6f4207f19e131e1214c10574d5a9ab7effe66655551565e600c2",
    "sample_v1.1.plan": "f4bf4b8dbb33468673f97fb5cf0bb9e2a904a16ef5b32d937e37a08ebb135590",
}
"""Golden files never change; a new format version adds a row."""


@pytest.mark.parametrize("name", GOLDEN_SHA256)
def test_golden_plan_is_unchanged_and_read(name):
    path = FOLDER / name
    assert hashlib.sha256(path.read_bytes()).hexdigest() == GOLDEN_SHA256[name]
    with open_plan(path, public_key=signing.public_key_of(GOLDEN_KEY)) as opened:
        details = sample_plan().details if opened.container.minor >= 1 else b""
        assert opened.plan == replace(sample_plan(), details=details)


def test_every_golden_file_has_its_row():
    assert {path.name for path in FOLDER.glob("*.plan")} == set(GOLDEN_SHA256)


def test_present_version_writes_its_golden_file():
    name = f"sample_v{VERSION_MAJOR}.{VERSION_MINOR}.plan"
    assert plan_bytes(sample_plan(), signing_key=GOLDEN_KEY) == (FOLDER / name).read_bytes()
