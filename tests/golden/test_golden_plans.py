"""Plans of every released format version are read for ever; see scripts/make_golden.py."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from support.plans import GOLDEN_KEY, sample_plan

from planformat import signing
from planformat.errors import PlanStrippedError
from planformat.reader import open_plan
from planformat.stripped import filled_plan, read_stripped, strip_plan
from planformat.version import COMPLETE_MINOR, VERSION_MAJOR, VERSION_MINOR
from planformat.writer import plan_bytes

FOLDER = Path(__file__).parent

GOLDEN_SHA256 = {
    "sample_v1.0.plan": "61097f2321db6f4207f19e131e1214c10574d5a9ab7effe66655551565e600c2",
    "sample_v1.1.plan": "f4bf4b8dbb33468673f97fb5cf0bb9e2a904a16ef5b32d937e37a08ebb135590",
}
"""Golden files never change; a new format version adds a row."""

STRIPPED_SHA256 = {
    "sample_v1.2.plan": "085f0e3516dfe54c54f9dc11dbbf2e2a3dc398dd758ac0c95d845fa1af31ff25",
}


@pytest.mark.parametrize("name", GOLDEN_SHA256)
def test_golden_plan_is_unchanged_and_read(name):
    path = FOLDER / name
    assert hashlib.sha256(path.read_bytes()).hexdigest() == GOLDEN_SHA256[name]
    with open_plan(path, public_key=signing.public_key_of(GOLDEN_KEY)) as opened:
        details = sample_plan().details if opened.container.minor >= 1 else b""
        assert opened.plan == replace(sample_plan(), details=details)


def test_every_golden_file_has_its_row():
    names = {path.name for path in FOLDER.glob("*.plan")}
    assert names == set(GOLDEN_SHA256) | set(STRIPPED_SHA256)


@pytest.mark.parametrize("name", STRIPPED_SHA256)
def test_stripped_golden_plan_is_unchanged_and_filled(name):
    data = (FOLDER / name).read_bytes()
    assert hashlib.sha256(data).hexdigest() == STRIPPED_SHA256[name]
    with pytest.raises(PlanStrippedError, match="its weights were stripped; put them in again"):
        open_plan(FOLDER / name)
    stripped = read_stripped(data, public_key=signing.public_key_of(GOLDEN_KEY))
    assert stripped.plan == replace(sample_plan(), weights=b"")
    whole = plan_bytes(sample_plan(), signing_key=GOLDEN_KEY)
    assert filled_plan(data, sample_plan().weights) == whole


def test_present_version_writes_its_golden_files():
    whole, stripped = (
        FOLDER / f"sample_v{VERSION_MAJOR}.{minor}.plan"
        for minor in (COMPLETE_MINOR, VERSION_MINOR)
    )
    content = plan_bytes(sample_plan(), signing_key=GOLDEN_KEY)
    assert content == whole.read_bytes()
    assert strip_plan(content) == stripped.read_bytes()
