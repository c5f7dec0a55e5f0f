"""Release number and expiry in a plan, and under its signature."""

from __future__ import annotations

import pytest
from support.plans import tiny_plan

from planformat.errors import PlanError
from planformat.reader import read_plan
from planformat.release import Release, release_of, with_release
from planformat.signing import generate_key, public_key_of
from planformat.writer import plan_bytes, sign_plan


def test_a_plan_states_nothing_at_first():
    assert release_of(tiny_plan()) == Release(0, "")


def test_statements_survive_the_file_and_can_be_removed():
    plan = with_release(tiny_plan(), Release(12, "2027-01-31"))
    again = read_plan(plan_bytes(plan))
    assert release_of(again) == Release(12, "2027-01-31")
    assert with_release(again, Release()) == tiny_plan()


def test_the_signature_covers_them():
    key = generate_key()
    data = sign_plan(plan_bytes(tiny_plan()), key, release=Release(7))
    assert release_of(read_plan(data, public_key=public_key_of(key))) == Release(7)
    kept = sign_plan(data, key)
    assert release_of(read_plan(kept)) == Release(7)
    with pytest.raises(PlanError):
        read_plan(data.replace(b"\x01" + b"7", b"\x01" + b"8"), public_key=public_key_of(key))


@pytest.mark.parametrize(
    ("number", "expires"),
    [(-1, ""), (1 << 54, ""), (1, "31.1.2027"), (1, "2027-13-01"), (1, "2027-1-1")],
)
def test_nonsense_is_refused(number, expires):
    with pytest.raises(PlanError):
        Release(number, expires)


@pytest.mark.parametrize("text", ["x", "-1", "1" * 17, ""])
def test_a_number_that_is_none_is_refused(text):
    from dataclasses import replace

    plan = replace(tiny_plan(), provenance={"release": text})
    with pytest.raises(PlanError, match="expected a whole number"):
        release_of(plan)
